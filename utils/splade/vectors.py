"""Sparse vectors over a vocabulary, one by one and as the rows of a matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse


class SparseVector(NamedTuple):
    """A text's non-zero term weights: vocabulary ids, ascending, and their weights, both of shape (terms,)."""

    indices: np.ndarray  # int32
    values: np.ndarray  # float32


EMPTY_VECTOR = SparseVector(np.empty(0, np.int32), np.empty(0, np.float32))


def to_csr(vectors: Sequence[SparseVector], vocabulary: int) -> scipy.sparse.csr_array:
    """Return the vectors as the rows of a [vectors, vocabulary] matrix."""
    starts = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    parts = [np.concatenate([getattr(vector, name) for vector in vectors]) for name in ("values", "indices")]
    return scipy.sparse.csr_array((*parts, starts), shape=(len(vectors), vocabulary))
