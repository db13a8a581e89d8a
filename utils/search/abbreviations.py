"""Abbreviations that documents define themselves, as suggestions for a file of synonyms."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils.documents.normalization import split_words
from utils.files import write_text

SHORT_WORDS = 2  # of an abbreviation, and 2 to 10 characters, as Schwartz and Hearst have it
CAPITALS = 2  # letters in upper case and digits that an abbreviation has at least, so that "(Smith)" is none
IN_PARENTHESES = re.compile(r"\(([^()]{2,200})\)")
SENTENCE_END = re.compile(r"[.!?;:]\s|[()]|\n\s*\n")
SHORT = re.compile(r"[^\W_](?:[\w&./+-]| (?! )){1,9}")
NO_PHRASE = re.compile(r"[<>{}|*=#_,\[\]]|://")  # markup, addresses, and what rules of synonyms are parted by
MARKUP = " \n*_`\"'\u2018\u2019\u201c\u201d"  # around a long form
HEADER = """\
## Abbreviations that the documents define, those of most documents first. None is used yet: take the "# " from the
## lines that are right, and name this file in --synonyms.
"""


def suggest_synonyms(path: str | Path, texts: Iterable[str]) -> tuple[int, int]:
    """Write the abbreviations that texts define, with the number of texts that do, in the format of
    utils.search.synonyms, each commented out; no file if there are none.

    Returns:
        How many pairs of an abbreviation and a long form there are, long forms in any case being one, and how many
        texts.

    Raises:
        OSError: the file cannot be written.
    """
    counts: Counter[tuple[str, str]] = Counter()
    spelled: dict[tuple[str, str], str] = {}  # as it was met first
    number_of_texts = 0
    for text in texts:
        number_of_texts += 1
        defined = {(short, long.lower()): long for short, long in find_abbreviations(text)}
        counts.update(defined.keys())
        for pair, long in defined.items():
            spelled.setdefault(pair, long)
    lines, last = [HEADER], 0
    for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count != last:
            lines.append(f"\n## in {count:,} document{'s' * (count > 1)}\n")
        lines.append(f"# {pair[0]}, {spelled[pair]}\n")
        last = count
    if counts:
        write_text(path, "".join(lines))
    return len(counts), number_of_texts


def find_abbreviations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (abbreviation, long form) of each definition in a text: `central processing unit (CPU)` or `CPU (central
    processing unit)`. The long form is the shortest text that has the abbreviation's letters in order, the first one at
    the beginning of a word (Schwartz and Hearst 2003, A simple algorithm for identifying abbreviation definitions in
    biomedical text)."""
    for match in IN_PARENTHESES.finditer(text):
        inside = re.split(r"[,;]\s", match[1], maxsplit=1)[0].strip()
        before = SENTENCE_END.split(text[max(0, match.start() - 300) : match.start()])[-1].split()
        if _is_short(inside):
            short, long = inside, " ".join(before[-_most_words(inside) :])
        elif before and _is_short(before[-1]) and len(inside.split()) <= _most_words(before[-1]):
            short, long = before[-1], " ".join(inside.split())
        else:
            continue
        long = _best_long_form(short, long).strip(MARKUP)
        if len(long) > len(short) and not NO_PHRASE.search(long) and short.lower() not in split_words(long):
            yield short, long


def _is_short(text: str) -> bool:
    return bool(
        SHORT.fullmatch(text)
        and len(text.split()) <= SHORT_WORDS
        and sum(character.isupper() or character.isdigit() for character in text) >= CAPITALS
        and any(character.isalpha() for character in text)
    )


def _most_words(short: str) -> int:
    """Return how many words a long form has at most."""
    letters = sum(map(str.isalnum, short))
    return min(letters + 5, 2 * letters)


def _best_long_form(short: str, text: str) -> str:
    """Return the shortest end of `text` that has the letters of `short` in order, "" if there is none."""
    letters = [character.lower() for character in short if character.isalnum()]
    place = len(text)
    for left, letter in zip(reversed(range(len(letters))), reversed(letters)):
        place -= 1
        while place >= 0 and (text[place].lower() != letter or (left == 0 and text[place - 1 : place].isalnum())):
            place -= 1
        if place < 0:
            return ""
    return text[text.rfind(" ", 0, place) + 1 :]
