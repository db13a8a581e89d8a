"""An index of documents in a collection of a Qdrant server or cluster, which any machine may search."""

import contextlib
import itertools
import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from utils.records import Document
from utils.search.base_index import BaseIndex
from utils.search.collection import FIELDS, Point, PointCollection, Query, field_key, matches
from utils.search.dense import DenseEncoder
from utils.search.filters import Condition, field_values
from utils.search.index import DENSE, MAX_HITS, MAX_INDEXED_FIELDS, SPLADE, WORDS
from utils.search.legs import LEGS, Vector
from utils.search.lexical import bm25_weights
from utils.search.mirror import ID_FIELD
from utils.search.store import StoredDocument, StoredPassage
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import EMPTY_VECTOR

UPSERT_POINTS = 256  # passages that a request adds
UPSERT_CHARACTERS = 4_000_000  # of their texts and metadata; Qdrant takes 32 MB by default, vectors and all
LISTED_IDS = 256  # documents that a request asks for by their ids
FIELD_NOTE = "field:"  # before a field's name, among what is noted of the collection
# A passage's payload: its document's id, which one of how many passages of that it is, and the rest.
ID, PLACE, PLACES = "document", "place", "places"
TITLE, METADATA, FINGERPRINT, HEADING, TEXT = "title", "metadata", "fingerprint", "heading", "text"


class RemoteIndex(BaseIndex):
    """Documents by id, in a collection; see BaseIndex. Documents are known by their ids, and passages by UUIDs that are
    made of id and place, so that a passage takes the place of the former one.

    What was added or removed is kept by the server once the call returns. An update that was cut short leaves each
    document as before, as after, or, at worst one batch of them, with passages of both: the next update encodes these
    again. Nothing keeps a second machine from changing the collection meanwhile; do not.

    BM25 weighs a passage's words by its length beside the mean one, which is taken from the first passages and kept.

    Args:
        shards, replicas: of a new collection, see `PointCollection.create`.
        upsert_points: passages that a request adds at most.

    Raises:
        ValueError: the collection was made with another model or language, or by another program.
        OSError: there is none, or the server fails.
    """

    version, kind = 1, "collection"

    def __init__(
        self,
        model: Encoder | None,
        collection: PointCollection,
        write: bool = False,
        language: str | None = None,
        dense: DenseEncoder | None = None,
        shards: int | None = None,
        replicas: int | None = None,
        upsert_points: int = UPSERT_POINTS,
    ) -> None:
        super().__init__(model, dense, collection.place, write, language)
        self._collection, self._upsert_points = collection, upsert_points
        self._pending: list[Point] = []
        self._replaced: dict[str, int] = {}  # how many passages documents have now that had others
        self._met_fields: defaultdict[str, dict[str, type]] = defaultdict(dict)  # keys and their values' types, by name
        if not collection.exists:
            if not write or not model:
                raise FileNotFoundError(f"{self._place}: no such collection; make it with embedder.py --index-url")
            collection.create(self._origin(), dense.dimensions if dense else None, shards, replicas)
        elif "format" not in collection.about:
            raise ValueError(f"{self._place}: is no index, but another collection; name another --collection")
        else:
            collection.check_layout(shards, replicas)
        self._check_origin()
        if write:
            for name, kind in ((ID, str), (PLACE, int)):
                if name not in collection.indexed:
                    collection.index_payload(name, kind)
        self._tell_unfinished()

    def close(self) -> None:
        self._collection.close()

    def counts(self) -> tuple[int, int]:
        return self._collection.count(matches(place=0)), self._collection.count()

    def about(self, name: str) -> Any:
        return self._collection.about.get(name)

    def _note(self, **values: Any) -> None:
        self._collection.note(**values)

    @contextlib.contextmanager
    def _changing(self, show_progress: bool) -> Iterator[None]:
        self._pending, self._replaced = [], {}  # of an update that failed
        self._met_fields.clear()
        yield
        self._flush()

    def _find_window(self, names: Sequence[str]) -> dict[str, StoredDocument]:
        self._flush()
        passages = defaultdict(list)
        parts = [ID, PLACE, PLACES, TITLE, METADATA, FINGERPRINT]
        for payload in self._collection.list_payloads(parts, matches(document=list(dict.fromkeys(names)))):
            passages[payload[ID]].append(payload)
        return {name: _whole_document(name, payloads) for name, payloads in passages.items()}

    def _put(self, document: Document, fingerprint: bytes, passages: Sequence[StoredPassage], replaces: bool) -> None:
        if replaces:
            self._replaced[document.id] = len(passages)
        whole = {
            ID: document.id,
            PLACES: len(passages),
            TITLE: document.title,
            METADATA: json.dumps(document.metadata),
            FINGERPRINT: fingerprint.hex(),
            FIELDS: self._field_values(document.id, document.metadata),
        }
        for place, passage in enumerate(passages):
            # The words' vector holds counts until the batch is sent.
            vectors = {SPLADE: passage.terms, WORDS: passage.words}
            if passage.dense is not None and (len(passage.terms.indices) or len(passage.words.indices)):
                vectors[DENSE] = passage.dense
            payload = whole | {PLACE: place, HEADING: passage.heading, TEXT: passage.text}
            self._pending.append(Point(_point_id(document.id, place), vectors, payload))
        if len(self._pending) >= self._upsert_points:
            self._flush()

    def _flush(self) -> None:
        """Send what is pending, then remove the passages that documents have too many."""
        self._learn_fields()
        if self._pending and self.about("mean_words") is None:
            lengths = [point.vectors[WORDS].values.sum() for point in self._pending]
            self._note(mean_words=float(np.mean(lengths)) or 1.0)
        batch, size = [], 0
        for point in self._pending:
            words = bm25_weights(point.vectors[WORDS], self.about("mean_words"))
            characters = len(point.payload[TEXT]) + 2 * len(point.payload[METADATA])  # once more as fields
            if batch and (len(batch) == self._upsert_points or size + characters > UPSERT_CHARACTERS):
                self._collection.upsert(batch)
                batch, size = [], 0
            batch.append(point._replace(vectors=point.vectors | {WORDS: words}))
            size += characters
        if batch:
            self._collection.upsert(batch)
        if self._replaced:
            surplus = [matches(document=name, place=range(end, 2**31)) for name, end in self._replaced.items()]
            self._collection.delete(*surplus)
        self._pending, self._replaced = [], {}

    def _relabel(self, known: StoredDocument, metadata: dict[str, Any]) -> None:
        payload = {METADATA: json.dumps(metadata), FIELDS: self._field_values(known.id, metadata)}
        self._learn_fields()
        self._collection.set_payload(payload, matches(document=known.id))

    def _field_values(self, name: str, metadata: dict[str, Any]) -> dict[str, list[float] | list[str]]:
        """Return a document's values by the keys of fields and kinds, and keep in mind which these are."""
        keyed = {}
        for field, values in field_values({ID_FIELD: name, **metadata}).items():
            for kind, parts in values.items():
                key = field_key(field, kind)
                keyed[key], self._met_fields[field][key] = parts, type(parts[0])
        return keyed

    def _learn_fields(self) -> None:
        """Tell the collection of the fields that were met, before a value of theirs is sent."""
        known, indexed = self.fields, self._collection.indexed
        if new := self._met_fields.keys() - known:
            self._note(**{FIELD_NOTE + field: True for field in sorted(new)})
        for key, kind in itertools.chain.from_iterable(map(dict.items, self._met_fields.values())):
            if f"{FIELDS}.{key}" not in indexed and len(indexed) < MAX_INDEXED_FIELDS:
                self._collection.index_payload(f"{FIELDS}.{key}", kind)
        self._met_fields.clear()

    def remove(self, ids: Iterable[str]) -> list[str]:
        self._check_changeable()
        names, known = list(ids), set()
        for part in _parts(list(dict.fromkeys(names))):
            among = matches(document=part)
            known |= {payload[ID] for payload in self._collection.list_payloads([ID], among)}
            self._collection.delete(among)
        unknown = []
        for name in names:
            if name in known:
                known.discard(name)
            else:
                unknown.append(name)
        return unknown

    def ids(self) -> Iterator[str]:
        for payload in self._collection.list_payloads([ID], matches(place=0)):
            yield payload[ID]

    def find(self, name: str) -> StoredDocument | None:
        return self.documents([name]).get(name)

    def documents(self, keys: Iterable[str]) -> dict[str, StoredDocument]:
        firsts = [_point_id(name, 0) for name in keys]
        points = self._collection.get_points(firsts, [ID, TITLE, METADATA, FINGERPRINT])
        return {point.payload[ID]: _document(point.payload[ID], point.payload) for point in points}

    def passages(self, keys: Iterable[str]) -> dict[str, StoredPassage]:
        points = self._collection.get_points(list(keys), [TEXT, HEADING], [SPLADE])
        return {point.id: self._passage(point) for point in points}

    def _passage(self, point: Point) -> StoredPassage:
        text, heading = point.payload[TEXT], point.payload[HEADING]
        return StoredPassage(text, heading, point.vectors.get(SPLADE, EMPTY_VECTOR), self._count_words(text))

    def passages_of(self, document: str) -> list[str]:
        places = (payload[PLACE] for payload in self._collection.list_payloads([PLACE], matches(document=document)))
        return [_point_id(document, place) for place in sorted(places)]

    def document_of(self, passage: str) -> str:
        (point,) = self._collection.get_points([passage], [ID])
        return point.payload[ID]

    def _search_passages(
        self, queries: Mapping[str, tuple[Vector, int]], where: Sequence[Sequence[Condition]]
    ) -> dict[str, list[tuple[str, str, float]]]:
        found = self._collection.search(
            [Query(LEGS[leg], vector, min(depth, MAX_HITS)) for leg, (vector, depth) in queries.items()], [ID], where
        )
        hits = ([(point.payload[ID], point.id, score) for point, score in points] for points in found)
        return {leg: sorted(rows, key=lambda row: (-row[2], row[1])) for leg, rows in zip(queries, hits)}

    def check_filters(self, where: Sequence[Sequence[Condition]]) -> None:
        if not {condition.field for conditions in where for condition in conditions} <= self.fields:
            self._collection.reload()  # another machine may have added one
        super().check_filters(where)

    @property
    def fields(self) -> Collection[str]:
        return {name.removeprefix(FIELD_NOTE) for name in self._collection.about if name.startswith(FIELD_NOTE)}


def _point_id(document: str, place: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{place} {document}"))


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), LISTED_IDS):
        yield names[start : start + LISTED_IDS]


def _document(name: str, payload: dict[str, Any]) -> StoredDocument:
    metadata = json.loads(payload[METADATA])
    return StoredDocument(name, name, payload[TITLE], metadata, bytes.fromhex(payload[FINGERPRINT]))


def _whole_document(name: str, payloads: Sequence[dict[str, Any]]) -> StoredDocument:
    """Return the document of these passages, with no fingerprint if they are not all of it, or not of one update."""
    document = _document(name, payloads[0])
    states = {(payload[PLACES], payload[FINGERPRINT], payload[METADATA]) for payload in payloads}
    places = sorted(payload[PLACE] for payload in payloads)
    is_whole = len(states) == 1 and places == list(range(payloads[0][PLACES]))
    return document if is_whole else document._replace(fingerprint=b"")
