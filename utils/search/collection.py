"""A collection of points with vectors on a Qdrant server: made, changed, listed and searched."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from qdrant_client import models

from utils.search.filters import TEXT, Comparison, Condition
from utils.search.index import DENSE, SPLADE, WORDS
from utils.search.legs import Vector
from utils.search.qdrant import Server
from utils.splade.vectors import SparseVector

PAGE_POINTS = 1000  # points that are listed by one request
FIELDS = "fields"  # of a point's payload, under which the values that conditions look at are
SCHEMAS = {
    str: models.PayloadSchemaType.KEYWORD,
    int: models.PayloadSchemaType.INTEGER,
    float: models.PayloadSchemaType.FLOAT,
}

Where = Sequence[Sequence[Condition]]


class Point(NamedTuple):
    """What a collection holds of a passage: its id, a UUID; by kind its vectors, of which empty ones are left out; and
    its payload, a JSON object."""

    id: str
    vectors: dict[str, Vector]
    payload: dict[str, Any]


class Query(NamedTuple):
    """A kind of vectors, what to multiply them with, and how many points with the highest products to find."""

    kind: str
    vector: Vector
    limit: int


class PointCollection:
    """A collection by its name. All methods raise OSError where the server fails or refuses, see Server.

    Args:
        url, retries, timeout: see Server.

    Attributes:
        place: its URL, for messages.
        exists: whether it was made.
        about: what is noted of it.
        indexed: the paths in payloads that have an index.

    Raises:
        ValueError: no such URL.
    """

    def __init__(self, url: str, name: str, retries: int = 5, timeout: int = 60) -> None:
        self._server, self._name = Server(url, retries, timeout), name
        self._client, self.place = self._server.client, f"{self._server.url}/collections/{name}"
        self.about: dict[str, Any] = {}
        self.indexed: set[str] = set()
        self.exists = self._server.request(lambda: self._client.collection_exists(name))
        if self.exists:
            self.reload()

    def close(self) -> None:
        self._client.close()

    def reload(self) -> None:
        """Learn what other machines have noted."""
        info = self._server.request(lambda: self._client.get_collection(self._name))
        self.about, self.indexed = info.config.metadata or {}, set(info.payload_schema)
        self._params = info.config.params

    def create(
        self, about: dict[str, Any], dimensions: int | None, shards: int | None = None, replicas: int | None = None
    ) -> None:
        """Make the collection.

        Args:
            about: what to note of it.
            dimensions: of DENSE vectors; None for none.
            shards, replicas: parts that it is stored in, and copies of each; None for what the server takes. A majority
                of the copies confirms each change.
        """
        half = models.SparseIndexParams(datatype=models.Datatype.FLOAT16)
        dense = {}
        if dimensions:  # normalized, so that the product is the cosine
            dense[DENSE] = models.VectorParams(
                size=dimensions, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16
            )
        options = {
            "vectors_config": dense,
            "sparse_vectors_config": {
                SPLADE: models.SparseVectorParams(index=half),
                WORDS: models.SparseVectorParams(index=half, modifier=models.Modifier.IDF),
            },
            "on_disk_payload": True,
            "shard_number": shards,
            "replication_factor": replicas,
            "write_consistency_factor": replicas and replicas // 2 + 1,
            "metadata": about,
        }

        def create_once() -> None:  # a try that seemed to fail may have made it
            if not self._client.collection_exists(self._name):
                self._client.create_collection(self._name, **options)

        self._server.request(create_once)
        self.exists = True
        self.reload()
        if not about.items() <= self.about.items():
            raise OSError(f"{self.place}: this server keeps no metadata of collections, as Qdrant does since 1.16")

    def check_layout(self, shards: int | None, replicas: int | None) -> None:
        """Check that the collection has as many shards and replicas, if these are asked for.

        Raises:
            ValueError: it has not.
        """
        there = {"shards": self._params.shard_number, "replicas": self._params.replication_factor}
        for name, asked in (("shards", shards), ("replicas", replicas)):
            if asked and asked != there[name]:
                raise ValueError(
                    f"{self.place}: was made with `{name}={there[name]}`, not {asked}; leave it out, or name another "
                    "collection"
                )

    def note(self, **values: Any) -> None:
        """Note values of the collection by name."""
        self._server.request(lambda: self._client.update_collection(self._name, metadata=values))
        self.about |= values

    def index_payload(self, path: str, kind: type) -> None:
        """Let filters find the values at a path in payloads, all of this kind: str, int or float."""
        self._server.request(lambda: self._client.create_payload_index(self._name, path, SCHEMAS[kind]))
        self.indexed.add(path)

    def upsert(self, points: Sequence[Point]) -> None:
        """Add points, each in place of one of the same id; once this returns they are kept, and found."""
        structs = [
            models.PointStruct(
                id=point.id,
                vector={kind: _as_stored(vector) for kind, vector in point.vectors.items() if not _is_empty(vector)},
                payload=point.payload,
            )
            for point in points
        ]
        self._server.request(lambda: self._client.upsert(self._name, structs))

    def set_payload(self, payload: dict[str, Any], of: models.Filter) -> None:
        """Replace the values of these names in the payloads of points."""
        self._server.request(lambda: self._client.set_payload(self._name, payload, of))

    def delete(self, *of: models.Filter) -> None:
        """Remove the points that one of the filters lets through."""
        selector = models.FilterSelector(filter=models.Filter(should=list(of)))
        self._server.request(lambda: self._client.delete(self._name, selector))

    def count(self, of: models.Filter | None = None) -> int:
        """Return the number of points."""
        return self._server.request(lambda: self._client.count(self._name, of)).count

    def list_payloads(self, names: Sequence[str], of: models.Filter) -> Iterator[dict[str, Any]]:
        """Yield the values of these names in the payloads of points, in no order that means anything."""
        options: dict[str, Any] = {"limit": PAGE_POINTS, "with_payload": list(names)}
        while True:
            records, offset = self._server.request(lambda: self._client.scroll(self._name, of, **options))
            yield from (record.payload for record in records)
            if offset is None:
                return
            options["offset"] = offset

    def get_points(self, ids: Sequence[str], names: Sequence[str], kinds: Sequence[str] = ()) -> list[Point]:
        """Return the points with these ids, in their order, with the values of these names in their payloads and these
        kinds of vectors; ids that none has are left out."""
        if not ids:
            return []
        options = {"with_payload": list(names), "with_vectors": list(kinds)}
        records = self._server.request(lambda: self._client.retrieve(self._name, ids, **options))
        points = {record.id: Point(record.id, _as_arrays(record.vector or {}), record.payload) for record in records}
        return [points[name] for name in ids if name in points]

    def search(self, queries: Sequence[Query], names: Sequence[str], where: Where) -> list[list[tuple[Point, float]]]:
        """Return of each query the (point, product), best first, of points that meet, of each of the lists in `where`,
        a condition; all by one request."""
        of = models.Filter(must=[_any_of(conditions) for conditions in where]) if where else None
        requests = [
            models.QueryRequest(query=_as_given(vector), using=kind, filter=of, limit=limit, with_payload=list(names))
            for kind, vector, limit in queries
        ]
        responses = self._server.request(lambda: self._client.query_batch_points(self._name, requests))
        return [[(Point(hit.id, {}, hit.payload), hit.score) for hit in response.points] for response in responses]


def matches(**values: Any) -> models.Filter:
    """Return the filter of the points whose payloads have all of these values by name: of a list of texts one, of a
    range an integer in it."""
    conditions = []
    for name, value in values.items():
        if isinstance(value, range):
            conditions.append(models.FieldCondition(key=name, range=models.Range(gte=value.start, lt=value.stop)))
        elif isinstance(value, list):
            conditions.append(models.FieldCondition(key=name, match=models.MatchAny(any=value)))
        else:
            conditions.append(models.FieldCondition(key=name, match=models.MatchValue(value=value)))
    return models.Filter(must=conditions)


def field_key(name: str, kind: str) -> str:
    """Return what the values of a kind of a field of metadata stand by in FIELDS, such as `number_year`. What is no
    ASCII letter, digit or _ in the name is written as -xx for each byte, since a path takes few other characters."""
    plain = re.sub(r"[^A-Za-z0-9_]", lambda match: "".join(f"-{byte:02x}" for byte in match[0].encode()), name)
    return f"{kind}_{plain}"


def _is_empty(vector: Vector) -> bool:
    return isinstance(vector, SparseVector) and not len(vector.indices)


def _as_stored(vector: Vector) -> models.SparseVector | list[float]:
    """Return a vector for the request, its numbers rounded as they are stored, which makes them shorter."""
    if isinstance(vector, SparseVector):
        return _as_given(vector._replace(values=vector.values.astype(np.float16)))
    return _as_given(vector.astype(np.float16))


def _as_given(vector: Vector) -> models.SparseVector | list[float]:
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
    return vector.tolist()


def _as_arrays(vectors: dict[str, Any]) -> dict[str, Vector]:
    return {
        kind: SparseVector(np.array(vector.indices, np.int32), np.array(vector.values, np.float32))
        if isinstance(vector, models.SparseVector)
        else np.array(vector, np.float32)
        for kind, vector in vectors.items()
    }


def _any_of(conditions: Sequence[Condition]) -> models.Filter:
    return models.Filter(should=[_condition(condition) for condition in conditions])


def _condition(condition: Condition) -> models.Filter:
    tests = [_comparison(f"{FIELDS}.{field_key(condition.field, test.kind)}", test) for test in condition.tests]
    return models.Filter(must_not=tests) if condition.negated else models.Filter(should=tests)


def _comparison(path: str, test: Comparison) -> models.FieldCondition:
    if test.kind == TEXT:
        return models.FieldCondition(key=path, match=models.MatchAny(any=list(test.texts)))
    low, high = "gt" if test.above_low else "gte", "lte" if test.with_high else "lt"
    bounds = {name: bound for name, bound in ((low, test.low), (high, test.high)) if math.isfinite(bound)}
    return models.FieldCondition(key=path, range=models.Range(**bounds))
