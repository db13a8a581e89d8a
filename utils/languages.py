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
# Codes of no one language: several, one without a code, an unknown one, none, and those for private use.
NOT_ONE_LANGUAGE = regex.compile(r"(?:mul|mis|und|zxx|q[a-t][a-z]|x)\b")
# Langcodes reads Traditional Chinese, and loses the script of Chinese (Traditional).
VARIANT = regex.compile(r"(.+) \((.+)\)")


def parse_language(text: str) -> str:
    """Return the BCP 47 tag, such as `de` or `zh-Hant`, of a language given by code (`deu`, `zh-Hant`) or by English
    name (`german`, `Traditional Chinese`); see `base_language` for the language alone.

    Raises:
        ValueError: there is no such language.
    """
    import langcodes  # takes a tenth of a second

    try:
        found = langcodes.get(text) if langcodes.tag_is_valid(text) else langcodes.find(VARIANT.sub(r"\2 \1", text))
    except LookupError:
        found = None
    # Langcodes takes one letter for the name of a language that resembles it.
    if len(LETTER.findall(text)) < 2 or not found or NOT_ONE_LANGUAGE.match(found.language or "und"):
        raise ValueError(f"unknown language '{text}': use a code or an English name, such as de or german")
    return found.to_tag()


def base_language(tag: str) -> str:
    """Return the ISO 639 code of a tag's language, without its script and region: `zh` of `zh-Hant`."""
    return tag.partition("-")[0]


def language_name(tag: str) -> str:
    """Return the English name of the language with this code or tag, such as `Chinese (Traditional)`."""
    import langcodes

    return langcodes.get(tag).display_name()


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
