"""Sparse vectors and the matrices made of them."""

import numpy as np
import pytest

from utils.splade.vectors import EMPTY_VECTOR, SparseVector, join_memory, to_csr


def vectors(ids=np.int32, weights=np.float32) -> list[SparseVector]:
    parts = ([1, 3], [0.5, 2.0]), ([], []), ([0], [4.0])
    return [SparseVector(np.array(part[0], ids), np.array(part[1], weights)) for part in parts]


@pytest.mark.parametrize("ids, weights", [(np.int32, np.float32), (np.int64, np.float64), (np.int64, np.float16)])
def test_rows_are_the_vectors_of_a_stream_whatever_their_types(ids, weights):
    matrix = to_csr(iter(vectors(ids, weights)), 5)
    assert matrix.toarray().tolist() == [[0, 0.5, 0, 2, 0], [0] * 5, [4, 0, 0, 0, 0]]
    assert (matrix.dtype, matrix.indices.dtype, matrix.indptr.dtype) == (np.float32, np.int32, np.int32)


@pytest.mark.parametrize("empty", [[], [EMPTY_VECTOR]])
def test_there_may_be_no_terms(empty):
    assert to_csr(empty, 5).shape == (len(empty), 5) and to_csr(empty, 5).nnz == 0
    assert [len(vector.indices) for vector in join_memory(empty)] == [0] * len(empty)


def test_vectors_share_two_arrays():
    joined = join_memory(vectors())
    for ours, theirs in zip(joined, vectors(), strict=True):
        assert ours.indices.tolist() == theirs.indices.tolist() and ours.values.tolist() == theirs.values.tolist()
    for part in (0, 1):
        assert len({id(vector[part].base) for vector in joined}) == 1
