"""Near-duplicate and related texts, by MinHash (Broder, SEQUENCES 1997) with locality-sensitive hashing."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import rensa

from utils.documents.normalization import split_words

DUPLICATE_JACCARD = 0.9  # Jaccard similarity of two texts' shingles; at or above it, one text duplicates the other
RELATED_JACCARD = 0.5  # Jaccard similarity; at or above it, two texts are related
SHINGLE_WORDS = 3  # words in a row
# Hash values of a signature, and the bands of 4 that they are divided into. Texts of Jaccard similarity J share a band
# with probability 1 - (1 - J^4)^32: 0.87 at J = 0.5, 1 at J = 0.7.
PERMUTATIONS, BANDS = 128, 32
MAX_CANDIDATES = 50  # earlier texts that share a band, and that a new one is compared with; bounds the time per text


class NearDuplicateIndex:
    """Index of named texts that finds the earlier texts that a new one duplicates or is related to.

    Args:
        related: Jaccard similarity from which on two texts are related.

    Attributes:
        duplicate_of: name of each near-duplicate -> name of the earlier text that it duplicates, itself no duplicate.
        related: pairs of names of related texts, the earlier one second; near-duplicates are related.
    """

    def __init__(self, related: float = RELATED_JACCARD) -> None:
        self.duplicate_of: dict[str, str] = {}
        self.related: list[tuple[str, str]] = []
        self._min_similarity = related
        self._with_band: dict[int, tuple[int, ...]] = {}  # hash of a band -> the first MAX_CANDIDATES texts with it
        self._signatures: list[tuple[str, rensa.RMinHash]] = []  # (name, signature)

    def add(self, name: str, text: str) -> bool:
        """Add a text; return False if it duplicates an earlier one."""
        signature = rensa.RMinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update(list(_shingles(text)))
        digest, width = signature.digest(), PERMUTATIONS // BANDS
        bands = [hash((start, *digest[start : start + width])) for start in range(0, PERMUTATIONS, width)]
        shared_bands = Counter(number for band in bands for number in self._with_band.get(band, ()))
        for number, _ in shared_bands.most_common(MAX_CANDIDATES):
            other, other_signature = self._signatures[number]
            similarity = signature.jaccard(other_signature)
            if similarity >= self._min_similarity:
                self.related.append((name, other))
            if similarity >= DUPLICATE_JACCARD:
                self.duplicate_of[name] = other
                return False
        for band in bands:
            numbers = self._with_band.get(band, ())
            if len(numbers) < MAX_CANDIDATES:
                self._with_band[band] = (*numbers, len(self._signatures))
        self._signatures.append((name, signature))
        return True


def find_other_formats(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of files, of texts by their names, that differ in the suffix alone and are related."""
    names_by_stem: defaultdict[PurePosixPath, list[str]] = defaultdict(list)
    for name in texts:
        names_by_stem[PurePosixPath(name).with_suffix("")].append(name)
    for names in names_by_stem.values():
        for pair in itertools.combinations(names, 2):
            index = NearDuplicateIndex()
            for name in pair:
                index.add(name, texts[name])
            if index.related:
                yield pair


def _shingles(text: str) -> set[str]:
    """Return all runs of SHINGLE_WORDS words of a text."""
    words = split_words(text)
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
