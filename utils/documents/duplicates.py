"""Near-duplicate and related texts, by MinHash (Broder, SEQUENCES 1997) with locality-sensitive hashing."""

import rensa

from utils.documents.normalization import split_words

DUPLICATE_JACCARD = 0.9  # Jaccard similarity of two texts' shingles; at or above it, one text duplicates the other
RELATED_JACCARD = 0.5  # Jaccard similarity; at or above it, two texts belong to one cluster
SHINGLE_WORDS = 3  # words in a row, or characters where a text has no spaces
# Hash values of a signature, and the bands of 4 that they are divided into. Texts of Jaccard similarity J share a band
# with probability 1 - (1 - J^4)^32: 0.87 at J = 0.5, 1 at J = 0.7.
PERMUTATIONS, BANDS = 128, 32
MAX_MEAN_WORD_LENGTH = 20  # characters; where words are longer on average, the script has no spaces
MAX_CANDIDATES = 50  # earlier texts that a new one is compared with, the first ones; bounds the time per text


class NearDuplicateIndex:
    """Index of named texts that finds near-duplicates of earlier ones, and clusters of related ones.

    Attributes:
        duplicate_of: name of each near-duplicate -> the `cluster` that the earlier text was added with, by default that
            text's name.
    """

    def __init__(self) -> None:
        self.duplicate_of: dict[str, str] = {}
        self._index = rensa.RMinHashLSH(threshold=RELATED_JACCARD, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._signatures: list[tuple[str, rensa.RMinHash]] = []  # (cluster, signature)
        self._parents: dict[str, str] = {}  # union-find: name -> another name of its cluster

    def add(self, name: str, text: str, cluster: str | None = None) -> bool:
        """Add a text; return False if it duplicates an earlier one. `cluster` names what the text belongs to, such as
        the document of a passage; by default the text starts a cluster of its own name."""
        signature = rensa.RMinHash(num_perm=PERMUTATIONS, seed=1)
        signature.update(list(_shingles(text)))
        cluster = cluster or name
        for number in sorted(self._index.query(signature))[:MAX_CANDIDATES]:
            other_cluster, other_signature = self._signatures[number]
            similarity = signature.jaccard(other_signature)
            if similarity >= RELATED_JACCARD:
                self.merge(cluster, other_cluster)
            if similarity >= DUPLICATE_JACCARD:
                self.duplicate_of[name] = other_cluster
                return False
        self._index.insert(len(self._signatures), signature)
        self._signatures.append((cluster, signature))
        return True

    def cluster(self, name: str) -> str:
        """Return the name that represents all texts related to this one, directly or through others."""
        while (parent := self._parents.get(name, name)) != name:
            self._parents[name] = self._parents.get(parent, parent)
            name = parent
        return name

    def merge(self, one: str, other: str) -> None:
        """Merge the clusters of two names."""
        self._parents[self.cluster(one)] = self.cluster(other)


def _shingles(text: str) -> set[str]:
    """Return all runs of SHINGLE_WORDS words of a text, or of characters where it has no spaces."""
    words = split_words(text)
    if sum(map(len, words)) > MAX_MEAN_WORD_LENGTH * len(words):
        words = list("".join(words))
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
