"""An index of documents: made from a stream, changed by document, searched by a model's vectors and by words."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from utils.arguments import check_positive
from utils.console import print_line, progress_bar
from utils.documents.reading import INDEX_STORE
from utils.files import lock_folder
from utils.languages import base_language, detect_language, parse_language
from utils.records import Document
from utils.search.analyzer import describe_analyzer
from utils.search.dense import DenseEncoder
from utils.search.filters import Condition, check_fields
from utils.search.fusion import fuse
from utils.search.index import DENSE, SPLADE, WORDS
from utils.search.ingestion import content_fingerprint, encode_documents, read_windows, same_metadata
from utils.search.lexical import K1, B, TermCounter
from utils.search.mirror import EngineMirror
from utils.search.store import PassageStore, StoredDocument, StoredPassage, document_of
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

FORMAT = 2  # of the folder
FUSED_DEPTH = 100  # documents of each leg that are fused
LEGS = {"splade": SPLADE, "bm25": WORDS, "dense": DENSE}  # what a hybrid search is made of -> vectors in the engine


class Hit(NamedTuple):
    """A document that was found, what it is ranked by, and the number of its best passage."""

    document: int
    score: float
    passage: int


class Update(NamedTuple):
    """How many documents an update has added, encoded anew, given other metadata alone, and found as they were."""

    added: int
    changed: int
    relabeled: int
    unchanged: int


class DocumentIndex:
    """Documents by id, encoded and indexed, on disk or for as long as the object lives. One that is longer than the
    model's limit in tokens is encoded as its passages (see `split_document`), and scores as the best of them; the
    others are encoded whole. Documents and passages have numbers, which grow in the order in which they are added.

    What was added or removed outlives a crash once the call returns; what a call that was cut short has done so far is
    kept, and said when the index is opened again. Several threads may search at once, while none changes it.

    Args:
        model: what encodes documents; None for an index that exists, from which documents are only removed.
        dense: what encodes their passages as dense vectors, too; None to do without.
        folder: where it is; None for a temporary one.
        write: whether to change it, which only one process may that has it open; it is made if there is none.
        language: of the texts, for the search by words; None for what the first documents are in.
        rebuild: make the engine's files anew, of the passages and vectors that are stored.

    Attributes:
        long_documents: how many of the documents added are longer than the limit.

    Raises:
        ValueError: another process has it, or it was made with another model or language, or is damaged.
        OSError: there is none, or it cannot be read.
    """

    def __init__(
        self,
        model: SpladeEncoder | None,
        folder: str | Path | None = None,
        write: bool = False,
        language: str | None = None,
        rebuild: bool = False,
        dense: DenseEncoder | None = None,
    ) -> None:
        self.model, self.dense, self.long_documents = model, dense, 0
        self._folder = Path(folder) if folder else None
        self._write = write or not folder
        self._language = base_language(parse_language(language)) if language else None
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

    def __enter__(self) -> "DocumentIndex":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes change it."""
        if self._mirror:
            self._mirror.close()
        self._open.close()

    def __len__(self) -> int:
        """Return the number of documents."""
        return self._store.counts()[0]

    @property
    def language(self) -> str | None:
        """ISO 639 code of the language that the words are searched in; None before the first document, or for none."""
        return self._store.about("language")

    @property
    def _terms(self) -> TermCounter:
        if self._counter is None:
            self._counter = TermCounter(self.language)
        return self._counter

    @property
    def dense_model(self) -> str | None:
        """Name, or folder, of the dense model; None without dense vectors."""
        return self._store.about("dense_model_name")

    def open_dense(self, device: str | None = None) -> None:
        """Open the dense model that the index was made with, unless it is open.

        Raises:
            ValueError, OSError, ImportError: it cannot be opened, or is another one now.
        """
        if not self.dense:
            self.dense = DenseEncoder(self.dense_model, device)
            self._check()

    @property
    def legs(self) -> list[str]:
        """What there is to search by, of LEGS."""
        return list(LEGS) if self.dense_model else [leg for leg in LEGS if LEGS[leg] != DENSE]

    @property
    def mean_terms(self) -> float:
        """Mean active terms of a passage."""
        return self._store.mean_terms()

    def describe(self) -> str:
        """Return what is in it, for a line of output."""
        documents, passages = self._store.counts()
        words = f"BM25: k1 {K1}, b {B}; {describe_analyzer(self.language)}"
        dense = f"; {self.dense_model}: {self._store.about('dimensions'):,} dimensions" if self.dense_model else ""
        return f"{documents:,} documents in {passages:,} passages, {self.mean_terms:.1f} terms each; {words}{dense}"

    def add(self, documents: Iterable[Document], batch_size: int | None = None, show_progress: bool = False) -> Update:
        """Add documents from a stream, each in place of one of the same id, in memory that does not grow with their
        number. One whose title and text are those of the index is not encoded again.

        Args:
            batch_size: see `SpladeEncoder.encode_stream`.

        Raises:
            ValueError: the index was opened to be searched, or without a model; or a document's metadata are nothing
                that JSON can hold.
            OSError: the disk fails.
        """
        self._check_changeable()
        if not self.model:
            raise ValueError(f"{self._folder}: was opened without a model, which encodes documents")
        store, counts = self._store, Counter()
        total = len(documents) if isinstance(documents, Sized) else None
        bar = progress_bar(total=total, desc="encoding", unit="passages", show=show_progress)
        store.note(unfinished=True)
        self._mirror.behind = True
        store.begin()
        with bar, contextlib.ExitStack() as kept:
            kept.callback(store.commit)  # what is whole when the stream breaks off
            unencoded: Counter[str] = Counter()  # documents by id
            fresh = self._read(documents, unencoded, counts, bar)
            encoded = encode_documents(fresh, self.model, self.dense, self._count_words, batch_size, bar)
            for document, passages, long in encoded:
                given = document.id, document.title, document.metadata, content_fingerprint(document)
                counts["changed" if store.put(*given, passages) else "added"] += 1
                self.long_documents += long
                unencoded[document.id] -= 1
        self._mirror.catch_up(show_progress)
        store.note(unfinished=False)
        return Update(*(counts[name] for name in Update._fields))

    def _check_changeable(self) -> None:
        if not self._write:
            raise ValueError(f"{self._folder}: was opened to be searched, not changed")

    def _read(
        self, documents: Iterable[Document], unencoded: Counter[str], counts: Counter[str], bar: tqdm
    ) -> Iterator[list[Document]]:
        """Yield new and changed documents, which are counted in `unencoded`; the bar is advanced for the others."""
        for window in read_windows(documents):
            self._store.commit()
            self._store.begin()
            self._note_language(window)
            fresh = []
            for document in window:
                known = self._store.find(document.id)
                same = known and known.fingerprint == content_fingerprint(document)
                if not same or unencoded[document.id]:
                    unencoded[document.id] += 1
                    fresh.append(document)
                    continue
                relabeled = not same_metadata(known.metadata, document.metadata)
                if relabeled:
                    self._store.put_metadata(known.number, document.metadata)
                counts["relabeled" if relabeled else "unchanged"] += 1
                bar.update()
            yield fresh

    def _count_words(self, text: str) -> SparseVector:
        return self._terms.count(text)

    def _note_language(self, window: Sequence[Document]) -> None:
        """Note, of the first documents with a text, what language all are searched in."""
        texts = [document.full_text for document in window]
        if not self._store.about("language_known") and any(text.strip() for text in texts):
            self._store.note(language=self._language or detect_language(texts), language_known=True)
            self._counter = None  # of a search before the first document

    def remove(self, ids: Iterable[str]) -> list[str]:
        """Remove documents; return those of the ids that none has.

        Raises:
            ValueError: the index was opened to be searched.
            OSError: the disk fails.
        """
        self._check_changeable()
        self._mirror.behind = True
        self._store.begin()
        try:
            unknown = [name for name in ids if self._store.remove(name) is None]
        finally:
            self._store.commit()
        self._mirror.catch_up()
        return unknown

    def ids(self) -> Iterator[str]:
        """Yield the ids of all documents, in the order of their numbers."""
        return self._store.ids()

    def find(self, name: str) -> StoredDocument | None:
        """Return the document with this id, without its text; None if there is none."""
        return self._store.find(name)

    def documents(self, numbers: Iterable[int]) -> dict[int, StoredDocument]:
        """Return documents, without their texts, by number."""
        return self._store.documents(numbers)

    def passages(self, numbers: Iterable[int]) -> dict[int, StoredPassage]:
        """Return passages by number."""
        return self._store.passages(numbers)

    def passages_of(self, document: int) -> list[int]:
        """Return the numbers of a document's passages, in order."""
        return self._store.passages_of(document)

    def search(
        self,
        vector: SparseVector | None = None,
        words: str | None = None,
        top_k: int = 10,
        where: Sequence[Sequence[Condition]] = (),
        dense: np.ndarray | None = None,
        fusion: str = "scores",
        weights: dict[str, float] | None = None,
    ) -> list[Hit]:
        """Return the `top_k` documents that match a query best, best first: those with the highest dot product with its
        vector, with the highest score of BM25 for its words, or with the highest dot product with its dense vector;
        with several of these, those with the highest sum (`utils.search.fusion.fuse`) among the best FUSED_DEPTH or
        `top_k` of each. By vector and by words, documents that share no term with the query are not found.

        Args:
            where: conditions on the documents, see utils.search.filters.parse_filters.
            fusion: one of utils.search.fusion.FUSIONS.
            weights: by the names of LEGS; None for 1 each.

        Raises:
            ValueError: no document has a field that a condition is on, or `top_k` is not at least 1.
        """
        check_positive(top_k=top_k)
        self.check_filters(where)
        if self._mirror.behind:  # a change was broken off
            self._mirror.catch_up()
        words = None if words is None else self._terms.count(words)
        queries = {leg: query for leg, query in zip(LEGS, (vector, words, dense)) if query is not None}
        depth = max(top_k, FUSED_DEPTH) if len(queries) > 1 else top_k
        found = {leg: self._search(LEGS[leg], query, depth, where) for leg, query in queries.items()}
        if len(found) == 1:
            return found.popitem()[1]
        fused = fuse({leg: {hit.document: hit.score for hit in hits} for leg, hits in found.items()}, fusion, weights)
        passages = {hit.document: hit.passage for hits in reversed(found.values()) for hit in hits}
        best = sorted(fused, key=lambda document: (-fused[document], document))[:top_k]
        return [Hit(document, fused[document], passages[document]) for document in best]

    def check_filters(self, where: Sequence[Sequence[Condition]]) -> None:
        """Check that some document has each field that a condition is on.

        Raises:
            ValueError: none has.
        """
        if where:
            check_fields(where, self._mirror.fields)

    def shared_words(self, query: str, passage: StoredPassage) -> list[str]:
        """Return the words of a query that BM25 finds in a passage."""
        known = set(passage.words.indices.tolist())
        return [word for word, number in self._terms.number_words(query).items() if number in known]

    def _search(
        self, kind: str, query: SparseVector | np.ndarray, top_k: int, where: Sequence[Sequence[Condition]]
    ) -> list[Hit]:
        depth = top_k
        while True:
            passages = self._mirror.search(kind, query, depth, where)
            best: dict[int, Hit] = {}
            for passage, score in passages:
                document = document_of(passage)
                best.setdefault(document, Hit(document, score, passage))
            if len(best) >= top_k or len(passages) < depth:
                return list(best.values())[:top_k]
            depth *= 2

    def _lock_and_load(self, rebuild: bool = False) -> None:
        if self._folder:
            self._open.enter_context(lock_folder(self._folder, shared=not self._write))
        self._store = PassageStore(self._folder and self._folder / INDEX_STORE)
        self._open.callback(self._store.close)
        if self._folder:
            self._check()
        elif self.dense:
            self._note_dense(self.dense)
        self._counter: TermCounter | None = None
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
        if self._store.about("unfinished") and not self._write:
            print_line(
                f"{self._folder}: its last update was interrupted; {len(self):,} documents are in it; to add the "
                "others, repeat the command"
            )

    def _note_dense(self, dense: DenseEncoder) -> None:
        name = _absolute_name(dense.name)
        self._store.note(dense_model=dense.fingerprint, dense_model_name=name, dimensions=dense.dimensions)

    def _check(self) -> None:
        """Check that the index is one of this version, of this model and language; note of a new one what it is of."""
        about, model, place = self._store.about, self.model, self._folder
        if about("format") is None:
            self._store.note(format=FORMAT)
        if about("format") != FORMAT:
            raise ValueError(f"{place}: an index of version {about('format')}, not {FORMAT}; make it anew")
        if model and about("model") is None:
            self._store.note(
                model=model.fingerprint, model_name=_absolute_name(model.name), max_length=model.max_length
            )
            if self.dense:
                self._note_dense(self.dense)
        for encoder, known in ((model, "model"), (self.dense, "dense_model")):
            if encoder and about(known) != encoder.fingerprint:
                other = about(f"{known}_name") or "none"
                raise ValueError(
                    f"{place}: was made with another {known.replace('_', ' ')} than {encoder.name}, {other}; name "
                    "that, or another folder"
                )
        if model and self._write and self.dense_model and not self.dense:
            raise ValueError(f"{place}: was made with the dense model {self.dense_model}; name it")
        if model and self._write and about("max_length") != model.max_length:
            raise ValueError(
                f"{place}: was made with `max_length={about('max_length')}`, not {model.max_length}; say so, or name "
                "another folder"
            )
        if self._language and about("language_known") and about("language") != self._language:
            raise ValueError(
                f"{place}: was made with `language={about('language')}`; leave the language out, or name another folder"
            )


def models_of_index(folder: str | Path) -> tuple[str | None, str | None]:
    """Return the names, or the folders, of the model and of the dense model that an index was made with; None for none,
    and where there is no index.

    Raises:
        ValueError, OSError: it is damaged, or cannot be read.
    """
    file = Path(folder, INDEX_STORE)
    if not file.is_file():
        return None, None
    store = PassageStore(file)
    try:
        return store.about("model_name"), store.about("dense_model_name")
    finally:
        store.close()


def _absolute_name(name: str) -> str:
    """Return a model's name, of a folder its whole path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
