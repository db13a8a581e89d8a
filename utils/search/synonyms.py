"""Synonyms and abbreviations of a domain, from a file, to vary training queries and to expand queries at search."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from utils.documents.normalization import split_words


class Synonyms:
    """Synonym rules for phrases, matched as whole words in any case.

    Args:
        path: a text file in the format of Solr and Elasticsearch. `cpu, processor, central processing unit` are
            equivalent phrases, `k8s => kubernetes` replaces the left side by the right one only, and # begins a
            comment line.

    Raises:
        ValueError: a line is no such rule, the file has no rule, or its bytes are not UTF-8.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._substitutes: dict[str, list[str]] = {}  # phrase, in lower case -> its synonyms
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            left, arrow, right = line.partition("=>")
            phrases, replacements = _phrases(left), _phrases(right)
            pairs = itertools.product(phrases, replacements) if arrow else itertools.permutations(phrases, 2)
            pairs = [(phrase, other) for phrase, other in pairs if phrase.lower() != other.lower()]
            if not pairs:
                raise ValueError(f"{path}: line {number}: expected `a, b` or `a => b`, not '{line.strip()}'")
            for phrase, other in pairs:
                self._substitutes.setdefault(phrase.lower(), []).append(other)
        if not self._substitutes:
            raise ValueError(f"{path}: holds no synonyms; is each line that is right still a comment, with a #?")
        longest_first = sorted(self._substitutes, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)

    def variants(self, text: str) -> Iterator[str]:
        """Yield the text with one phrase replaced by one synonym, for each occurrence of a phrase and each synonym."""
        for match in self._pattern.finditer(text):
            for synonym in self._substitutes[match[0].lower()]:
                yield text[: match.start()] + synonym + text[match.end() :]

    def expand(self, text: str) -> str:
        """Return the text followed by the synonyms of its phrases that it does not contain."""
        matches = self._pattern.finditer(text)
        synonyms = dict.fromkeys(synonym for match in matches for synonym in self._substitutes[match[0].lower()])
        words = _padded_words(text)
        return " ".join([text, *(synonym for synonym in synonyms if _padded_words(synonym) not in words)])


def _padded_words(text: str) -> str:
    """Return the words of a text with a space before and after each, so that a substring test compares whole words."""
    return " ".join(["", *split_words(text), ""])


def _phrases(text: str) -> list[str]:
    """Split at commas, and drop empty phrases."""
    return [" ".join(part.split()) for part in text.split(",") if part.strip()]
