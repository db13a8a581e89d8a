"""An index of documents on disk, or in memory: made from a stream, changed by document, searched by several legs."""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.documents.reading import INDEX_STORE
from utils.files import lock_folder
from utils.records import Document
from utils.search.base_index import BaseIndex
from utils.search.dense import DenseEncoder
from utils.search.filters import Condition
from utils.search.legs import LEGS, Vector
from utils.search.mirror import EngineMirror
from utils.search.store import PassageStore, StoredDocument, StoredPassage, document_of
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector


class DocumentIndex(BaseIndex):
    """Documents by id, encoded and indexed, on disk or for as long as the object lives; see BaseIndex. Documents and
    passages have numbers, which grow in the order in which they are added.

    What was added or removed outlives a crash once the call returns; what a call that was cut short has done so far is
    kept, and said when the index is opened again. Several threads may search at once, while none changes it.

    Args:
        model: what encodes documents; None for an index that exists, from which documents are only removed.
        dense: what encodes their passages as dense vectors, too; None to do without.
        folder: where it is; None for a temporary one.
        write: whether to change it, which only one process may that has it open; it is made if there is none.
        language: of the texts, for the search by words; None for what the first documents are in.
        rebuild: make the engine's files anew, of the passages and vectors that are stored.

    Raises:
        ValueError: another process has it, or it was made with another model or language, or is damaged.
        OSError: there is none, or it cannot be read.
    """

    version, kind = 2, "folder"

    def __init__(
        self,
        model: Encoder | None,
        folder: str | Path | None = None,
        write: bool = False,
        language: str | None = None,
        rebuild: bool = False,
        dense: DenseEncoder | None = None,
    ) -> None:
        super().__init__(model, dense, str(folder), write or not folder, language)
        self._folder = Path(folder) if folder else None
        self._open = contextlib.ExitStack()
        self._mirror: EngineMirror | None = None
        if folder and self._folder.exists() and not self._folder.is_dir():
            raise NotADirectoryError(f"{folder}: is a file; an index is a folder")
        if folder and not (self._folder / INDEX_STORE).is_file():
            if not write or not model:
                raise FileNotFoundError(f"{folder}: no index in this folder; make one with embedder.py --index-dir")
            if self._folder.is_dir() and any(self._folder.iterdir()):
                raise ValueError(f"{folder}: holds other files, and no index; name an empty folder, or a new one")
        try:
            self._lock_and_load(rebuild)
        except BaseException:
            self.close()
            raise

    def _lock_and_load(self, rebuild: bool = False) -> None:
        if self._folder:
            self._open.enter_context(lock_folder(self._folder, shared=not self._write))
        self._store = PassageStore(self._folder and self._folder / INDEX_STORE)
        self._open.callback(self._store.close)
        if not self._folder:
            self._note(**self._dense_origin())  # the rest, with the model's fingerprint, is for who opens it later
        else:
            if self.model and self.about("format") is None:
                self._note(**self._origin())
            self._check_origin()
        self._counter = None
        self._mirror = EngineMirror(self._store, self._folder)
        if rebuild:
            self._mirror.rebuild(show_progress=True)
        elif not self._mirror.behind:
            self._mirror.load()
        elif self._write:
            self._mirror.catch_up()
        else:  # the process that changed it was killed; the rest is done here, with nobody else in it
            self._open.close()
            DocumentIndex(None, self._folder, write=True).close()
            return self._lock_and_load()
        self._tell_unfinished()

    def close(self) -> None:
        """Let other processes change it."""
        if self._mirror:
            self._mirror.close()
        self._open.close()

    def counts(self) -> tuple[int, int]:
        return self._store.counts()

    def about(self, name: str) -> Any:
        return self._store.about(name)

    def _note(self, **values: Any) -> None:
        self._store.note(**values)

    @property
    def mean_terms(self) -> float:
        """Mean active terms of a passage."""
        return self._store.mean_terms()

    def term_frequencies(self) -> SparseVector:
        """Return in how many passages each of the model's terms is active."""
        return self._store.term_frequencies()

    def vector_bytes(self, legs: Collection[str]) -> int:
        """Return the bytes of the vectors that these legs search, as they are stored."""
        return sum(size for leg, size in zip(LEGS, self._store.vector_bytes()) if leg in legs)

    def _mean_size(self) -> str:
        return f", {self.mean_terms:.1f} terms each"

    @contextlib.contextmanager
    def _changing(self, show_progress: bool) -> Iterator[None]:
        self._mirror.behind = True
        self._store.begin()
        try:
            yield
        finally:
            self._store.commit()  # what is whole when the stream breaks off
        self._mirror.catch_up(show_progress)

    def _find_window(self, names: Sequence[str]) -> dict[str, StoredDocument]:
        self._store.commit()
        self._store.begin()
        return {name: known for name in names if (known := self._store.find(name))}

    def _put(self, document: Document, fingerprint: bytes, passages: Sequence[StoredPassage], replaces: bool) -> None:
        self._store.put(document.id, document.title, document.metadata, fingerprint, passages)

    def _relabel(self, known: StoredDocument, metadata: dict[str, Any]) -> None:
        self._store.put_metadata(known.number, metadata)

    def remove(self, ids: Iterable[str]) -> list[str]:
        self._check_changeable()
        with self._changing(show_progress=False):
            return [name for name in ids if self._store.remove(name) is None]

    def ids(self) -> Iterator[str]:
        return self._store.ids()

    def find(self, name: str) -> StoredDocument | None:
        return self._store.find(name)

    def documents(self, keys: Iterable[int]) -> dict[int, StoredDocument]:
        return self._store.documents(keys)

    def passages(self, keys: Iterable[int]) -> dict[int, StoredPassage]:
        return self._store.passages(keys)

    def passages_of(self, document: int) -> list[int]:
        return self._store.passages_of(document)

    def document_of(self, passage: int) -> int:
        return document_of(passage)

    def _search_passages(
        self, queries: Mapping[str, tuple[Vector, int]], where: Sequence[Sequence[Condition]]
    ) -> dict[str, list[tuple[int, int, float]]]:
        if self._mirror.behind:  # a change was broken off
            self._mirror.catch_up()
        found = {leg: self._mirror.search(LEGS[leg], *query, where) for leg, query in queries.items()}
        return {leg: [(document_of(hit), hit, score) for hit, score in hits] for leg, hits in found.items()}

    @property
    def fields(self) -> Collection[str]:
        return self._mirror.fields


def models_of_index(folder: str | Path) -> tuple[str | None, str | None]:
    """Return the names, or the folders, of the model and of the dense model that an index was made with; None for none,
    and where there is no index.

    Raises:
        ValueError: another process changes it, or it is damaged.
        OSError: it cannot be read.
    """
    file = Path(folder, INDEX_STORE)
    if not file.is_file():
        return None, None
    with lock_folder(folder, shared=True), contextlib.closing(PassageStore(file)) as store:
        return store.about("model_name"), store.about("dense_model_name")
