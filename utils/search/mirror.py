"""The engine's index of the passages of a store, brought up to it."""

import importlib.metadata
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utils.console import progress_bar
from utils.search.filters import Condition, field_values
from utils.search.index import DENSE, SPLADE, WORDS, IndexPoint, VectorIndex, field_key
from utils.search.lexical import bm25_weights
from utils.search.store import PassageStore, StoredDocument, document_of
from utils.splade.vectors import SparseVector

ENGINE_NAME = "engine"  # in an index's folder
SETTLED_PASSAGES = 10_000  # passages that the engine takes in between two flushes
MERGED_PASSAGES = 250_000  # that it takes in between two merges, which bounds the memory that one takes: 5 GB
TAKEN_PASSAGES = 256  # passages read of the store at a time
# BM25's weights depend on the mean length of all passages. When it is this far from what it was, they are made anew.
LENGTH_TOLERANCE = 0.05
ID_FIELD = "id"  # that a filter can ask for, unless a document's metadata has one of this name


class EngineMirror:
    """What the engine searches of a store.

    Args:
        folder: of the index; None for a temporary one.

    Attributes:
        behind: whether the store has what the engine has not.
        fields: numbers of the fields of all metadata, by name.
    """

    def __init__(self, store: PassageStore, folder: Path | None) -> None:
        self._store, self._folder = store, folder and folder / ENGINE_NAME
        self._engine: VectorIndex | None = None
        self.fields = store.fields()
        self.behind = not store.about("engine_settled") or store.count_changes() > 0

    def close(self) -> None:
        """Close the engine's files."""
        if self._engine:
            self._engine.close()
            self._engine = None

    def search(
        self, kind: str, query: SparseVector | np.ndarray, top_k: int, where: Sequence[Sequence[Condition]]
    ) -> list[tuple[int, float]]:
        """Return passages, see VectorIndex.search; conditions are on fields that there are."""
        where = [[c._replace(field=str(self.fields[c.field])) for c in conditions] for conditions in where]
        return self._engine.search(kind, query, top_k, where)

    def rebuild(self, show_progress: bool = False) -> None:
        """Make the engine's files anew of the passages and vectors that are stored."""
        self.close()
        self._store.note(engine_settled=False)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._store.note(mean_words=self._store.mean_words(), engine_version=_engine_version())
        self._store.change_all()
        self._engine = self._open()
        self._settle(show_progress)

    def _open(self) -> VectorIndex:
        return VectorIndex(self._folder, self._store.about("dimensions"))

    def catch_up(self, show_progress: bool = False) -> None:
        """Let the engine take in what has changed."""
        known, now = self._store.about("mean_words"), self._store.mean_words()
        if known is None or abs(now / known - 1) > LENGTH_TOLERANCE:
            return self.rebuild(show_progress)
        if self._engine is None:
            try:
                self._engine = self._open()
            except ValueError:  # it was killed at work
                return self.rebuild(show_progress)
        if self._engine.stamp != self._store.about("engine_stamp"):
            return self.rebuild(show_progress)
        self._settle(show_progress)
        if len(self._engine) != self._store.count_searchable():
            self.rebuild(show_progress)

    def load(self) -> None:
        """Open the engine's files as the last process left them.

        Raises:
            ValueError: they are damaged, or of a version that cannot be read.
            OSError: they cannot be written, which the engine does to open them, too.
        """
        try:
            if not self._folder.is_dir():
                raise ValueError(f"{self._folder}: is missing")
            loaded = self._open()
            if loaded.stamp != self._store.about("engine_stamp") or len(loaded) != self._store.count_searchable():
                loaded.close()
                raise ValueError(f"{self._folder}: is not of this index, or a part is missing")
        except ValueError as error:
            raise ValueError(
                f"{error}; it was made with qdrant-edge-py {self._store.about('engine_version')}, and this is "
                f"{_engine_version()}; embedder.py --index-dir {self._folder.parent} --rebuild makes its files anew, "
                "without the model"
            ) from None
        self._engine = loaded

    def _settle(self, show_progress: bool) -> None:
        store, engine = self._store, self._engine
        total, mean_words = store.count_changes(), store.about("mean_words")
        if total or not store.about("engine_settled"):
            store.note(engine_settled=False)
            unmerged = 0
            with progress_bar(total=total, desc="indexing", unit="passages", leave=False, show=show_progress) as bar:
                while numbers := store.changes(SETTLED_PASSAGES):
                    for start in range(0, len(numbers), TAKEN_PASSAGES):
                        self._take_in(numbers[start : start + TAKEN_PASSAGES], mean_words)
                        bar.update(len(numbers[start : start + TAKEN_PASSAGES]))
                    unmerged += len(numbers)
                    if unmerged >= MERGED_PASSAGES:
                        engine.merge()
                        unmerged = 0
                    engine.flush()
                    store.settle(numbers[-1])
            stamp = uuid.uuid4().hex
            store.note(engine_stamp=stamp)
            engine.settle(stamp)
            store.note(engine_settled=True)
        self.behind = False

    def _take_in(self, numbers: Sequence[int], mean_words: float) -> None:
        found = self._store.passages(numbers)
        self._engine.delete([number for number in numbers if number not in found])
        documents = self._store.documents({document_of(number) for number in found})
        fields = {number: self._engine_fields(document) for number, document in documents.items()}
        points = []
        for number, passage in found.items():
            vectors = {SPLADE: passage.terms, WORDS: bm25_weights(passage.words, mean_words)}
            if passage.dense is not None:
                vectors[DENSE] = passage.dense
            points.append(IndexPoint(number, vectors, fields[document_of(number)]))
        self._engine.upsert(points)

    def _engine_fields(self, document: StoredDocument) -> dict[str, list[float] | list[str]]:
        """Return a document's values by the engine's names for fields and kinds."""
        keyed = {}
        for name, values in field_values({ID_FIELD: document.id, **document.metadata}).items():
            if name not in self.fields:
                self.fields[name] = self._store.add_field(name)
            for kind, parts in values.items():
                keyed[field_key(str(self.fields[name]), kind)] = parts
        return keyed


def _engine_version() -> str:
    return importlib.metadata.version("qdrant-edge-py")
