"""The search index: Qdrant's engine in this process, over sparse vectors on disk."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

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

VECTOR_NAME = "splade"  # of the vector in each point
UPSERT_POINTS = 1000  # points an update


class SearchIndex:
    """An inverted index over sparse vectors; a document is known by its position, 0, 1, 2, ...

    Args:
        vectors: the documents' (indices, values), in order. An empty vector takes its position and is never found.

    It lives in a temporary folder, and is gone with the object.
    """

    def __init__(self, vectors: Sequence[tuple]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="splade-index-")
        config = EdgeConfig(sparse_vectors={VECTOR_NAME: EdgeSparseVectorParams()}, wal_enabled=False)
        self._shard = EdgeShard.create(str(Path(self._folder.name)), config)
        filled = [i for i, (indices, _) in enumerate(vectors) if len(indices)]
        for start in range(0, len(filled), UPSERT_POINTS):
            points = [Point(i, {VECTOR_NAME: _sparse(*vectors[i])}, {}) for i in filled[start : start + UPSERT_POINTS]]
            self._shard.update(UpdateOperation.upsert_points(points))
        self._shard.optimize()

    def search(self, vector: tuple, top_k: int) -> list[tuple[int, float]]:
        """The `top_k` (position, dot product) highest for the query's (indices, values), best first, ties by
        position; only documents that share a term with it."""
        if not len(vector[0]):
            return []
        query = Query.Nearest(_sparse(*vector), using=VECTOR_NAME)
        hits = [(hit.id, hit.score) for hit in self._shard.query(QueryRequest(limit=top_k, query=query))]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _sparse(indices, values) -> SparseVector:
    return SparseVector(indices=indices.tolist(), values=values.tolist())
