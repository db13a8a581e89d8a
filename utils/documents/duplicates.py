"""Texts that say nearly the same (MinHash of Broder, SEQUENCES 1997, with locality-sensitive hashing)."""

from collections.abc import Iterable

import rensa

from utils.documents.normalization import words_of

DUPLICATE_JACCARD = 0.9  # Jaccard similarity of two texts' runs of words from which on one is a copy of the other
RELATED_JACCARD = 0.5  # and from which on they belong together
SHINGLE_WORDS = 3  # words
PERMUTATIONS, BANDS = 128, 32  # two texts at 0.5 meet in some band with a probability of 0.87, at 0.7 of 1
MAX_MEAN_WORD_LENGTH = 20  # characters; where words are longer on average, the script has no spaces
MAX_CANDIDATES = 50  # earlier texts that one is compared with


class NearDuplicateIndex:
    """Which of the texts told so far repeat another, and which are related. Texts are known by their names.

    Attributes:
        copies: the earlier text that each copy repeats.
    """

    def __init__(self) -> None:
        self.duplicate_of: dict[str, str] = {}
        self._index = rensa.RMinHashLSH(threshold=RELATED_JACCARD, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._signatures: list[tuple[str, rensa.RMinHash]] = []
        self._parents: dict[str, str] = {}

    def add(self, name: str, text: str, family: str | None = None) -> bool:
        """Tell a text; whether it is no copy. `family` is the name of what it belongs to, if not of itself."""
        signature = rensa.RMinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update(list(_shingles(text)))
        family = family or name
        for number in sorted(self._index.query(signature))[:MAX_CANDIDATES]:
            other, known = self._signatures[number]
            similarity = signature.jaccard(known)
            if similarity >= RELATED_JACCARD:
                self.join(family, other)
            if similarity >= DUPLICATE_JACCARD:
                self.duplicate_of[name] = other
                return False
        self._index.insert(len(self._signatures), signature)
        self._signatures.append((family, signature))
        return True

    def family(self, name: str) -> str:
        """The name that stands for all texts related to this one, directly or by others between."""
        while (parent := self._parents.get(name, name)) != name:
            self._parents[name] = self._parents.get(parent, parent)
            name = parent
        return name

    def join(self, one: str, other: str) -> None:
        """Count two texts as related."""
        self._parents[self.family(one)] = self.family(other)


def _shingles(text: str) -> Iterable[str]:
    """The runs of a text's words, or of its characters where it has no spaces."""
    words = words_of(text)
    if sum(map(len, words)) > MAX_MEAN_WORD_LENGTH * len(words):
        words = list("".join(words))
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
