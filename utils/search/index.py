"""Vectors of passages, searched by Qdrant's engine within this process; no other module calls the engine."""

import contextlib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import qdrant_edge as engine

from utils.search.filters import TEXT, Comparison, Condition
from utils.splade.vectors import SparseVector

# Kinds of vectors, of which a point has each that is not empty. Those of WORDS hold what BM25 gives a term of a passage
# before the engine multiplies it by the term's inverse document frequency. Those of DENSE are arrays.
SPLADE, WORDS, DENSE = "splade", "words", "dense"
UPSERT_POINTS = 1000  # points per update; bounds the memory of those that are converted at a time
MAX_HITS = 2**31  # that the engine can be asked for
MAX_INDEXED_FIELDS = 64  # fields with an index of their own, which makes a filter faster and its first value slow
SEGMENTS = 4  # that a search goes through on all cores; each is merged apart, so that few additions rebuild little
STAMP_NAME = "stamp"  # a file of the folder, which says what state the engine was left in


class IndexPoint(NamedTuple):
    """What the engine holds of a passage.

    Attributes:
        number: which one it is, from 0 to 2**63 - 1.
        vectors: by kind.
        fields: what conditions look at: values by a field's name and kind, see `field_key`.
    """

    number: int
    vectors: dict[str, SparseVector | np.ndarray]
    fields: dict[str, list[float] | list[str]]


def field_key(name: str, kind: str) -> str:
    """Return what the engine knows a field's values of a kind by; a name is letters and digits."""
    return f"{kind}{name}"


class VectorIndex:
    """Inverted index over points, on disk. It has no log: changes outlive a crash once `flush` returns.

    Args:
        folder: where it is, made if missing; None for a temporary folder, which is deleted with the object.
        dimensions: of the DENSE vectors of a new one; None for none.

    Raises:
        ValueError: the engine cannot read what is in the folder.
        OSError: the folder cannot be written, which the engine does to open it, too.
    """

    def __init__(self, folder: Path | None = None, dimensions: int | None = None) -> None:
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="splade-index-")
        self.folder = folder or Path(self._temporary.name)
        self._deleted = False
        if folder and folder.exists():
            if not os.access(folder, os.W_OK):
                raise OSError(
                    f"{folder}: cannot be written, which the engine has to; copy the index to where it can be"
                )
            try:
                self._shard = engine.EdgeShard.load(str(folder))
            except Exception as error:  # the engine's errors have no class of their own
                raise ValueError(f"{folder}: the engine cannot read it: {' '.join(str(error).split())}") from None
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._named_errors():
                self._shard = engine.EdgeShard.create(str(self.folder), _engine_config(dimensions))
        self._indexed_fields = set(self._shard.info().payload_schema)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raise OSError for what the engine cannot do: as its files are, that is what the disk cannot."""
        try:
            yield
        except Exception as error:
            raise OSError(f"{self.folder}: {' '.join(str(error).split())}; is the disk full?") from None

    @property
    def stamp(self) -> str:
        """What was last written by `settle`, "" for nothing."""
        try:
            return (self.folder / STAMP_NAME).read_text()
        except FileNotFoundError:
            return ""

    def __len__(self) -> int:
        """Return the number of points; one whose vectors are all empty is none."""
        return self._shard.info().points_count

    def upsert(self, points: Iterable[IndexPoint]) -> None:
        """Add points, each in place of one of the same number; one whose vectors are all empty takes that away."""
        batch: list[engine.Point] = []
        empty: list[int] = []
        for point in points:
            vectors = {kind: _engine_vector(vector) for kind, vector in point.vectors.items() if _holds_terms(vector)}
            if not vectors:
                empty.append(point.number)
                continue
            for name in point.fields.keys() - self._indexed_fields:
                if len(self._indexed_fields) < MAX_INDEXED_FIELDS:
                    self._index_field(name, isinstance(point.fields[name][0], str))
            batch.append(engine.Point(point.number, vectors, point.fields))
            if len(batch) == UPSERT_POINTS:
                self._update(engine.UpdateOperation.upsert_points(batch))
                batch = []
        if batch:
            self._update(engine.UpdateOperation.upsert_points(batch))
        self.delete(empty)

    def _index_field(self, name: str, texts: bool) -> None:
        cold = engine.Memory.Cold  # in memory, these would be what takes longest to open
        kind = engine.KeywordIndexParams(memory=cold) if texts else engine.FloatIndexParams(memory=cold)
        self._update(engine.UpdateOperation.create_field_index(name, kind))
        self._indexed_fields.add(name)

    def _update(self, operation: engine.UpdateOperation) -> None:
        with self._named_errors():
            self._shard.update(operation)

    def delete(self, numbers: Sequence[int]) -> None:
        """Remove points; numbers that are none do no harm."""
        if numbers:
            self._update(engine.UpdateOperation.delete_points(list(numbers)))
            self._deleted = True

    def flush(self) -> None:
        """Write what has changed to the disk."""
        with self._named_errors():
            self._shard.flush()

    def merge(self) -> None:
        """Merge what many updates have left apart, and drop what they have removed, where that is worth it."""
        with self._named_errors():
            self._shard.optimize()

    def settle(self, stamp: str) -> None:
        """Merge as `merge` does, and write the changes and the stamp."""
        self.merge()
        with self._named_errors():
            self._shard.flush()
            if self._deleted:  # until it is loaded again, the engine counts words of what was removed
                self._shard.close()
                self._shard = engine.EdgeShard.load(str(self.folder))
                self._deleted = False
        (self.folder / STAMP_NAME).write_text(stamp)

    def close(self) -> None:
        self._shard.close()

    def search(
        self, kind: str, vector: SparseVector | np.ndarray, top_k: int, where: Sequence[Sequence[Condition]] = ()
    ) -> list[tuple[int, float]]:
        """Return the `top_k` (number, dot product) of points whose vectors of this kind have the highest product with
        the query's, best first, ties by number, of which any may be the last; only of points that meet, of each of the
        lists in `where`, a condition and, by sparse vectors, share a term with the query."""
        if not _holds_terms(vector):
            return []
        request = engine.QueryRequest(
            limit=min(top_k, MAX_HITS),
            query=engine.Query.Nearest(_engine_vector(vector), using=kind),
            filter=engine.Filter(must=[_any_of(conditions) for conditions in where]) if where else None,
        )
        hits = [(hit.id, hit.score) for hit in self._shard.query(request)]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))


def _engine_config(dimensions: int | None) -> engine.EdgeConfig:
    half, cached = engine.VectorStorageDatatype.Float16, engine.Memory.Cached  # which several processes share
    kinds = {
        SPLADE: engine.EdgeSparseVectorParams(datatype=half, memory=cached),
        WORDS: engine.EdgeSparseVectorParams(datatype=half, memory=cached, modifier=engine.Modifier.Idf),
    }
    dense = {}
    if dimensions:  # normalized, so that the product is the cosine
        dense[DENSE] = engine.EdgeVectorParams(dimensions, engine.Distance.Dot, datatype=half, memory=cached)
    return engine.EdgeConfig(
        vectors=dense,
        sparse_vectors=kinds,
        optimizers=engine.EdgeOptimizersConfig(default_segment_number=SEGMENTS),
        max_search_threads=SEGMENTS,
        wal_enabled=False,
    )


def _holds_terms(vector: SparseVector | np.ndarray) -> bool:
    return isinstance(vector, np.ndarray) or len(vector.indices) > 0


def _engine_vector(vector: SparseVector | np.ndarray) -> engine.SparseVector | list[float]:
    if isinstance(vector, np.ndarray):
        return vector.tolist()
    return engine.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())


def _any_of(conditions: Sequence[Condition]) -> engine.Filter:
    return engine.Filter(should=[_engine_condition(condition) for condition in conditions])


def _engine_condition(condition: Condition) -> engine.Filter:
    tests = [_engine_comparison(field_key(condition.field, test.kind), test) for test in condition.tests]
    return engine.Filter(must_not=tests) if condition.negated else engine.Filter(should=tests)


def _engine_comparison(key: str, test: Comparison) -> engine.FieldCondition:
    if test.kind == TEXT:
        return engine.FieldCondition(key=key, match=engine.MatchAny(list(test.texts)))
    low, high = "gt" if test.above_low else "gte", "lte" if test.with_high else "lt"
    bounds = {name: bound for name, bound in ((low, test.low), (high, test.high)) if math.isfinite(bound)}
    return engine.FieldCondition(key=key, range=engine.RangeFloat(**bounds))
