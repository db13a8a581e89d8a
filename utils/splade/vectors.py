"""Sparse vectors over a vocabulary, and the matrices made of them, SciPy's or torch's."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch

SparseMatrix = scipy.sparse.csr_array | torch.Tensor  # a tensor has a sparse layout


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


def join_memory(vectors: Sequence[SparseVector]) -> list[SparseVector]:
    """Return the vectors as parts of one array of ids and one of weights. Allocated a batch at a time, they lie between
    the batches' states, whose memory is then not used again: ten times their own size for as long as they are kept."""
    starts = np.cumsum([0, *(len(vector.indices) for vector in vectors)]).tolist()
    indices, values = (np.concatenate([EMPTY_VECTOR[part], *(vector[part] for vector in vectors)]) for part in (0, 1))
    return [SparseVector(indices[start:end], values[start:end]) for start, end in pairwise(starts)]


def mean_terms(vectors: Sequence[SparseVector]) -> float:
    """Return the mean number of active terms."""
    return float(np.mean([len(vector.indices) for vector in vectors]))


def to_csr(vectors: Iterable[SparseVector], vocabulary: int) -> scipy.sparse.csr_array:
    """Return the vectors as the rows of a [vectors, vocabulary] CSR matrix. Those of a stream are in memory once."""
    values, indices, starts = array("f"), array("i"), array("q", [0])
    for vector in vectors:
        values.frombytes(np.asarray(vector.values, np.float32).tobytes())
        indices.frombytes(np.asarray(vector.indices, np.int32).tobytes())
        starts.append(len(indices))
    index_type = np.int32 if len(indices) <= np.iinfo(np.int32).max else np.int64  # SciPy has one type for both
    columns, rows = (np.frombuffer(part, part.typecode).astype(index_type, copy=False) for part in (indices, starts))
    return scipy.sparse.csr_array((np.frombuffer(values, "f"), columns, rows), (len(starts) - 1, vocabulary))


def to_sparse_tensor(matrix: scipy.sparse.csr_array) -> torch.Tensor:
    """Return a matrix as a coalesced COO tensor."""
    entries = matrix.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    options = {"is_coalesced": True, "check_invariants": False}
    return torch.sparse_coo_tensor(places, torch.from_numpy(entries.data), matrix.shape, **options)


def from_sparse_tensor(matrix: SparseMatrix) -> scipy.sparse.csr_array:
    """Return a tensor, COO or CSR, on any device, as a CSR matrix; one that is none as it is."""
    if not isinstance(matrix, torch.Tensor):
        return matrix
    matrix = matrix.detach().cpu().to_sparse_coo().coalesce()
    parts = matrix.values().numpy(), tuple(matrix.indices().numpy())
    return scipy.sparse.coo_array(parts, shape=tuple(matrix.shape)).tocsr()
