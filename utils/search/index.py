"""Sparse vectors of passages, searched by Qdrant's engine within this process; no other module calls the engine."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import qdrant_edge as engine

from utils.search.filters import Condition, Value
from utils.splade.vectors import SparseVector

# Kinds of vectors, of which a point has each that is not empty. Those of WORDS hold what BM25 gives a term of a passage
# before the engine multiplies it by the term's inverse document frequency.
SPLADE, WORDS = "splade", "words"
UPSERT_POINTS = 1000  # points per update; bounds the memory of those that are converted at a time
MAX_HITS = 2**31  # that the engine can be asked for
BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


class IndexPoint(NamedTuple):
    """What the engine holds of a passage.

    Attributes:
        number: which one it is, from 0 to 2**63 - 1.
        vectors: by kind.
        fields: what conditions look at, by a name of letters and digits; the values of a name are all of one type.
    """

    number: int
    vectors: dict[str, SparseVector]
    fields: dict[str, list[Value]]


class VectorIndex:
    """Inverted index over points, on disk. It has no log: changes outlive a crash once `flush` returns.

    Args:
        folder: where it is, made if missing; None for a temporary folder, which is deleted with the object.

    Raises:
        ValueError: the engine cannot read what is in the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="splade-index-")
        path = folder or Path(self._temporary.name)
        if folder and folder.exists():
            try:
                self._shard = engine.EdgeShard.load(str(folder))
            except Exception as error:  # the engine's errors have no class of their own
                raise ValueError(f"{folder}: the engine cannot read it: {' '.join(str(error).split())}") from None
        else:
            path.mkdir(parents=True, exist_ok=True)
            half = engine.VectorStorageDatatype.Float16
            kinds = {
                SPLADE: engine.EdgeSparseVectorParams(datatype=half),
                WORDS: engine.EdgeSparseVectorParams(datatype=half, modifier=engine.Modifier.Idf),
            }
            config = engine.EdgeConfig(sparse_vectors=kinds, wal_enabled=False)
            self._shard = engine.EdgeShard.create(str(path), config)
        self._indexed_fields = set(self._shard.info().payload_schema)

    def __len__(self) -> int:
        """Return the number of points; one whose vectors are all empty is none."""
        return self._shard.count(engine.CountRequest(exact=True))

    def upsert(self, points: Iterable[IndexPoint]) -> None:
        """Add points, each in place of one of the same number."""
        batch: list[engine.Point] = []
        for point in points:
            vectors = {kind: _engine_vector(vector) for kind, vector in point.vectors.items() if len(vector.indices)}
            if not vectors:
                continue
            for name in point.fields.keys() - self._indexed_fields:
                kinds = engine.PayloadSchemaType
                kind = kinds.Keyword if isinstance(point.fields[name][0], str) else kinds.Float
                self._shard.update(engine.UpdateOperation.create_field_index(name, kind))
                self._indexed_fields.add(name)
            batch.append(engine.Point(point.number, vectors, point.fields))
            if len(batch) == UPSERT_POINTS:
                self._shard.update(engine.UpdateOperation.upsert_points(batch))
                batch = []
        if batch:
            self._shard.update(engine.UpdateOperation.upsert_points(batch))

    def delete(self, numbers: Sequence[int]) -> None:
        """Remove points; numbers that are none do no harm."""
        if numbers:
            self._shard.update(engine.UpdateOperation.delete_points(list(numbers)))

    def flush(self) -> None:
        """Write what has changed to the disk."""
        self._shard.flush()

    def optimize(self) -> None:
        """Merge what many updates have left apart, and drop what they have removed, where that is worth it."""
        self._shard.optimize()
        self._shard.flush()

    def close(self) -> None:
        self._shard.close()

    def search(
        self, kind: str, vector: SparseVector, top_k: int, where: Sequence[Sequence[Condition]] = ()
    ) -> list[tuple[int, float]]:
        """Return the `top_k` (number, dot product) of points whose vectors of this kind have the highest product with
        the query's, best first, ties by number; only of points that share a term with the query and meet, of each of
        the lists in `where`, a condition."""
        if not len(vector.indices):
            return []
        request = engine.QueryRequest(
            limit=min(top_k, MAX_HITS),
            query=engine.Query.Nearest(_engine_vector(vector), using=kind),
            filter=engine.Filter(must=[_any_of(conditions) for conditions in where]) if where else None,
        )
        hits = [(hit.id, hit.score) for hit in self._shard.query(request)]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _engine_vector(vector: SparseVector) -> engine.SparseVector:
    return engine.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())


def _any_of(conditions: Sequence[Condition]) -> engine.Filter:
    return engine.Filter(should=[_engine_condition(condition) for condition in conditions])


def _engine_condition(condition: Condition) -> engine.FieldCondition | engine.Filter:
    name, relation, value = condition
    if relation == "!=":
        return engine.Filter(must_not=[_engine_condition(Condition(name, "=", value))])
    if isinstance(value, str):
        return engine.FieldCondition(key=name, match=engine.MatchAny([value]))
    bounds = {"gte": value, "lte": value} if relation == "=" else {BOUNDS[relation]: value}
    return engine.FieldCondition(key=name, range=engine.RangeFloat(**bounds))
