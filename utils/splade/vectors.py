"""Sparse vectors over a vocabulary, and the CSR matrix made of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse


class SparseVector(NamedTuple):
    """Non-zero term weights of a text: vocabulary ids in ascending order and their weights, both [active terms]."""

    indices: np.ndarray  # int32
    values: np.ndarray  # float32

    def heaviest(self, count: int | None) -> "SparseVector":
        """Return the vector of the `count` terms with the highest weights, of all for None."""
        if count is None or len(self.indices) <= count:
            return self
        kept = np.sort(np.argsort(-self.values, kind="stable")[:count])
        return SparseVector(self.indices[kept], self.values[kept])


EMPTY_VECTOR = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32))


def to_csr(vectors: Sequence[SparseVector], vocabulary: int) -> scipy.sparse.csr_array:
    """Return the vectors as the rows of a [vectors, vocabulary] CSR matrix."""
    starts = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    parts = [
        np.concatenate([getattr(vector, name) for vector in (EMPTY_VECTOR, *vectors)]) for name in ("values", "indices")
    ]
    return scipy.sparse.csr_array((*parts, starts), shape=(len(vectors), vocabulary))
