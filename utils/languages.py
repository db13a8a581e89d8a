"""Languages: their names as people write them, and which one texts are in."""

import functools
from collections import defaultdict
from collections.abc import Sequence

import regex

SAMPLE_TEXTS = 100  # texts, evenly spaced, that a collection's language is taken from
SAMPLE_CHARACTERS = 1000  # of the start of each text of the sample
BLOCK_CHARACTERS = 500  # characters classified at a time; a few words of a short text are too little
NO_LANGUAGE = "zxx"  # ISO 639's code for numbers, code and the like
LETTER = regex.compile(r"\p{L}")


def parse_language(text: str) -> str:
    """Return the ISO 639 code, such as `de`, of a language given by code (`de`, `deu`, `de-AT`) or by name (`german`).

    Raises:
        ValueError: there is no such language.
    """
    import langcodes  # takes a tenth of a second

    try:
        found = langcodes.get(text) if langcodes.tag_is_valid(text) else langcodes.find(text)
    except LookupError:
        found = None
    if not found or not found.language:
        raise ValueError(f"unknown language '{text}': use a code or an English name, such as de or german")
    return found.language


def language_name(code: str) -> str:
    """Return the English name of the language with this code."""
    import langcodes

    return langcodes.get(code).display_name()


def detect_language(texts: Sequence[str]) -> str | None:
    """Return the code of the language that most of a sample of the texts is in; None if no language has more than half.

    A block of the sample counts for each language by the probability that it is in it (py3langid; the method is Lui
    and Baldwin's, langid.py, ACL 2012), and blocks without any language, such as code, for none.
    """
    sample = "\n".join(text[:SAMPLE_CHARACTERS] for text in texts[:: max(1, len(texts) // SAMPLE_TEXTS)])
    counted: dict[str, float] = defaultdict(float)  # characters by language
    for start in range(0, len(sample), BLOCK_CHARACTERS):
        block = sample[start : start + BLOCK_CHARACTERS]
        if LETTER.search(block):
            for code, probability in _identifier().rank(block):
                counted[code] += len(block) * probability
    counted.pop(NO_LANGUAGE, None)
    best = max(counted, key=counted.get, default=None)
    return best if best and counted[best] > sum(counted.values()) / 2 else None


@functools.cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # its model takes most of a second to load

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
