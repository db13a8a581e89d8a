"""Abbreviations and synonyms of a domain: one file, for training data and for search."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from utils.documents.normalization import words_of


class Synonyms:
    """Which phrases may stand for which.

    Args:
        path: a text file in the format of Solr and Elasticsearch: `cpu, processor, central processing unit` for phrases
            that may stand for each other, `k8s => kubernetes` for what only the left side may be replaced by, # for
            comments.

    Raises:
        ValueError: a line that is neither, a file that holds none, or bytes that are not UTF-8.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._substitutes: dict[str, list[str]] = {}  # phrase, in lower case -> what may stand for it
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            left, arrow, right = line.partition("=>")
            phrases, others = _phrases(left), _phrases(right)
            pairs = itertools.product(phrases, others) if arrow else itertools.permutations(phrases, 2)
            pairs = [(phrase, other) for phrase, other in pairs if phrase.lower() != other.lower()]
            if not pairs:
                raise ValueError(f"{path}: line {number}: expected `a, b` or `a => b`, not '{line.strip()}'")
            for phrase, other in pairs:
                self._substitutes.setdefault(phrase.lower(), []).append(other)
        if not self._substitutes:
            raise ValueError(f"{path}: holds no synonyms")
        longest_first = sorted(self._substitutes, key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)

    def variants(self, text: str) -> Iterator[str]:
        """The text with one phrase replaced, once for each phrase in it and each that may stand for it."""
        for match in self._pattern.finditer(text):
            for other in self._substitutes[match[0].lower()]:
                yield text[: match.start()] + other + text[match.end() :]

    def expand(self, text: str) -> str:
        """The text with all that may stand for its phrases after it, where it does not say that already."""
        matches = self._pattern.finditer(text)
        more = [other for match in matches for other in self._substitutes[match[0].lower()]]
        return " ".join(
            [text, *(other for other in dict.fromkeys(more) if _padded_words(other) not in _padded_words(text))]
        )


def _padded_words(text: str) -> str:
    return " ".join(["", *words_of(text), ""])


def _phrases(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(",") if part.strip()]
