"""Search index: sparse vectors on disk, searched by Qdrant's engine within this process."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from qdrant_edge import (
    EdgeConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    Point,
    Query,
    QueryRequest,
    SparseVector,
    UpdateOperation,
)

VECTOR_NAME = "splade"  # each point of the engine holds one vector, by this name
UPSERT_POINTS = 1000  # points per update; bounds the memory of those that are converted at a time


class SearchIndex:
    """Inverted index over sparse vectors, in a temporary folder that is deleted with the object.

    Args:
        vectors: (indices, values), arrays [active terms], of each document. A document is identified by its position in
            the list; one with an empty vector is never found.
    """

    def __init__(self, vectors: Sequence[tuple]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="splade-index-")
        config = EdgeConfig(sparse_vectors={VECTOR_NAME: EdgeSparseVectorParams()}, wal_enabled=False)
        self._shard = EdgeShard.create(str(Path(self._folder.name)), config)
        non_empty = [i for i, (indices, _) in enumerate(vectors) if len(indices)]
        for start in range(0, len(non_empty), UPSERT_POINTS):
            positions = non_empty[start : start + UPSERT_POINTS]
            points = [Point(i, {VECTOR_NAME: _sparse_vector(*vectors[i])}, {}) for i in positions]
            self._shard.update(UpdateOperation.upsert_points(points))
        self._shard.optimize()
        self._size = len(vectors)

    def search(self, vector: tuple, top_k: int) -> list[tuple[int, float]]:
        """Return the `top_k` (position, dot product) with the highest product with the query's (indices, values), best
        first, ties by position; only documents that share a term with the query."""
        if not len(vector[0]):
            return []
        query = Query.Nearest(_sparse_vector(*vector), using=VECTOR_NAME)
        request = QueryRequest(limit=min(top_k, self._size), query=query)
        hits = [(hit.id, hit.score) for hit in self._shard.query(request)]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _sparse_vector(indices: np.ndarray, values: np.ndarray) -> SparseVector:
    return SparseVector(indices=indices.tolist(), values=values.tolist())
