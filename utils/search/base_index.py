"""What an index of documents does wherever it is kept: encoding what has changed, and searching by several legs."""

import contextlib
import functools
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from utils.arguments import check_positive
from utils.console import print_line, progress_bar
from utils.languages import base_language, detect_language, parse_language
from utils.records import Document
from utils.search.analyzer import describe_analyzer
from utils.search.dense import DenseEncoder
from utils.search.filters import Condition, check_fields
from utils.search.index import DENSE
from utils.search.ingestion import content_fingerprint, encode_documents, read_windows, same_metadata
from utils.search.legs import LEGS, Hit, Key, Vector, rank_documents
from utils.search.lexical import K1, B, TermCounter
from utils.search.store import StoredDocument, StoredPassage
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector


class Update(NamedTuple):
    """How many documents an update has added, encoded anew, given other metadata alone, and found as they were."""

    added: int
    changed: int
    relabeled: int
    unchanged: int


class BaseIndex(ABC):
    """Documents by id, encoded and indexed. One that is longer than the model's limit in tokens is encoded as its
    passages (see `split_document`), and scores as the best of them; the others are encoded whole.

    Args:
        model: what encodes documents; None for an index that exists, from which documents are only removed.
        dense: what encodes their passages as dense vectors, too; None to do without.
        place: where it is, for messages.
        write: whether to change it.
        language: of the texts, for the search by words; None for what the first documents are in.

    Attributes:
        long_documents: how many of the documents added are longer than the limit.
    """

    version: int  # of how the index is kept
    kind: str  # what one can name another of

    def __init__(
        self, model: Encoder | None, dense: DenseEncoder | None, place: str, write: bool, language: str | None
    ) -> None:
        self.model, self.dense, self.long_documents = model, dense, 0
        self._place, self._write = place, write
        self._language = base_language(parse_language(language)) if language else None
        self._counter: TermCounter | None = None

    def __enter__(self) -> "BaseIndex":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...

    def __len__(self) -> int:
        """Return the number of documents."""
        return self.counts()[0]

    @abstractmethod
    def counts(self) -> tuple[int, int]:
        """Return how many documents and how many passages there are."""

    @abstractmethod
    def about(self, name: str) -> Any:
        """Return what is noted of the index by this name, None if nothing is."""

    @abstractmethod
    def _note(self, **values: Any) -> None:
        """Note values of the index by name."""

    @property
    def language(self) -> str | None:
        """ISO 639 code of the language that the words are searched in; None before the first document, or for none."""
        return self.about("language")

    @property
    def dense_model(self) -> str | None:
        """Name, or folder, of the dense model; None without dense vectors."""
        return self.about("dense_model_name")

    def open_dense(self, device: str | None = None) -> None:
        """Open the dense model that the index was made with, unless it is open.

        Raises:
            ValueError, OSError, ImportError: it cannot be opened, or is another one now.
        """
        if not self.dense:
            self.dense = DenseEncoder(self.dense_model, device)
            self._check_origin()

    @property
    def legs(self) -> list[str]:
        """What there is to search by, of LEGS."""
        return list(LEGS) if self.dense_model else [leg for leg in LEGS if LEGS[leg] != DENSE]

    @property
    def _terms(self) -> TermCounter:
        if self._counter is None:
            self._counter = TermCounter(self.language)
        return self._counter

    def describe(self) -> str:
        """Return what is in it, for a line of output."""
        documents, passages = self.counts()
        words = f"BM25: k1 {K1}, b {B}; {describe_analyzer(self.language)}"
        dense = f"; {self.dense_model}: {self.about('dimensions'):,} dimensions" if self.dense_model else ""
        return f"{documents:,} documents in {passages:,} passages{self._mean_size()}; {words}{dense}"

    def _mean_size(self) -> str:
        return ""

    def add(self, documents: Iterable[Document], batch_size: int | None = None, show_progress: bool = False) -> Update:
        """Add documents from a stream, each in place of one of the same id, in memory that does not grow with their
        number. One whose title and text are those of the index is not encoded again.

        Args:
            batch_size: see `Encoder.encode_stream`.

        Raises:
            ValueError: the index was opened to be searched, or without a model; or a document's metadata are nothing
                that JSON can hold.
            OSError: the disk, or the server, fails.
        """
        self._check_changeable()
        if not self.model:
            raise ValueError(f"{self._place}: was opened without a model, which encodes documents")
        counts, unencoded = Counter(), defaultdict(list)
        total = len(documents) if isinstance(documents, Sized) else None
        bar = progress_bar(total=total, desc="encoding", unit="passages", show=show_progress)
        self._note(unfinished=True)
        with self._changing(show_progress), bar:
            fresh = self._read(documents, unencoded, counts, bar)
            encoded = encode_documents(fresh, self.model, self.dense, self._count_words, batch_size, bar)
            for document, passages, long in encoded:
                replaces = unencoded[document.id].pop(0)
                if not unencoded[document.id]:
                    del unencoded[document.id]
                self._put(document, content_fingerprint(document), passages, replaces)
                counts["changed" if replaces else "added"] += 1
                self.long_documents += long
        self._note(unfinished=False)
        return Update(*(counts[name] for name in Update._fields))

    def _check_changeable(self) -> None:
        if not self._write:
            raise ValueError(f"{self._place}: was opened to be searched, not changed")

    def _count_words(self, text: str) -> SparseVector:
        return self._terms.count(text)

    def _read(
        self, documents: Iterable[Document], unencoded: defaultdict[str, list[bool]], counts: Counter[str], bar: tqdm
    ) -> Iterator[list[Document]]:
        """Yield new and changed documents; the bar is advanced for the others. By its id, `unencoded` is told of each
        that is yielded whether it replaces one."""
        for window in read_windows(documents):
            self._note_language(window)
            known_documents = self._find_window([document.id for document in window])
            fresh = []
            for document in window:
                known, again = known_documents.get(document.id), document.id in unencoded
                same = known and known.fingerprint == content_fingerprint(document)
                if not same or again:
                    unencoded[document.id].append(again or known is not None)
                    fresh.append(document)
                    continue
                relabeled = not same_metadata(known.metadata, document.metadata)
                if relabeled:
                    self._relabel(known, document.metadata)
                    known_documents[document.id] = known._replace(metadata=document.metadata)
                counts["relabeled" if relabeled else "unchanged"] += 1
                bar.update()
            yield fresh

    def _note_language(self, window: Sequence[Document]) -> None:
        """Note, of the first documents with a text, what language all are searched in."""
        texts = [document.full_text for document in window]
        if not self.about("language_known") and any(text.strip() for text in texts):
            self._note(language=self._language or detect_language(texts), language_known=True)
            self._counter = None  # of a search before the first document

    @abstractmethod
    def _changing(self, show_progress: bool) -> contextlib.AbstractContextManager[None]:
        """Return the context of an update, after which what was put and relabeled in it is kept and found."""

    @abstractmethod
    def _find_window(self, names: Sequence[str]) -> dict[str, StoredDocument]:
        """Return, by id, those of some documents that the index has, all that was put before included; it calls this at
        the start of each window of an update."""

    @abstractmethod
    def _put(self, document: Document, fingerprint: bytes, passages: Sequence[StoredPassage], replaces: bool) -> None:
        """Add a document, in place of the one of the same id where it `replaces` one."""

    @abstractmethod
    def _relabel(self, known: StoredDocument, metadata: dict[str, Any]) -> None:
        """Replace a document's metadata."""

    @abstractmethod
    def remove(self, ids: Iterable[str]) -> list[str]:
        """Remove documents; return those of the ids that none has.

        Raises:
            ValueError: the index was opened to be searched.
            OSError: the disk, or the server, fails.
        """

    @abstractmethod
    def ids(self) -> Iterator[str]:
        """Yield the ids of all documents."""

    @abstractmethod
    def find(self, name: str) -> StoredDocument | None:
        """Return the document with this id, without its text; None if there is none."""

    @abstractmethod
    def documents(self, keys: Iterable[Key]) -> dict[Key, StoredDocument]:
        """Return documents, without their texts; those that are none are left out."""

    @abstractmethod
    def passages(self, keys: Iterable[Key]) -> dict[Key, StoredPassage]:
        """Return passages; those that are none are left out."""

    def passage(self, key: Key) -> StoredPassage:
        """Return a passage.

        Raises:
            ValueError: it is none, or is no more.
        """
        found = self.passages([key]).get(key)
        if not found:
            raise ValueError(f"{self._place}: this passage was removed")
        return found

    @abstractmethod
    def passages_of(self, document: Key) -> list[Key]:
        """Return a document's passages, in order."""

    @abstractmethod
    def document_of(self, passage: Key) -> Key:
        """Return the document of a passage that there is."""

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
            OSError: the server fails.
        """
        check_positive(top_k=top_k)
        self.check_filters(where)
        words = None if words is None else self._terms.count(words)
        queries = {leg: query for leg, query in zip(LEGS, (vector, words, dense)) if query is not None}
        search = functools.partial(self._search_passages, where=where)
        return rank_documents(search, queries, top_k, fusion, weights)

    @abstractmethod
    def _search_passages(
        self, queries: Mapping[str, tuple[Vector, int]], where: Sequence[Sequence[Condition]]
    ) -> dict[str, list[tuple[Key, Key, float]]]:
        """Return by leg the (document, passage, score) of so many passages whose vectors have the highest product with
        the query, best first; only of those that meet, of each of the lists in `where`, a condition and, by sparse
        vectors, share a term with the query."""

    def check_filters(self, where: Sequence[Sequence[Condition]]) -> None:
        """Check that some document has each field that a condition is on.

        Raises:
            ValueError: none has.
        """
        if where:
            check_fields(where, self.fields)

    @property
    @abstractmethod
    def fields(self) -> Collection[str]:
        """Return the names of the fields of all metadata."""

    def shared_words(self, query: str, passage: StoredPassage) -> list[str]:
        """Return the words of a query that BM25 finds in a passage."""
        known = set(passage.words.indices.tolist())
        return [word for word, number in self._terms.number_words(query).items() if number in known]

    def _origin(self) -> dict[str, Any]:
        """Return what is noted of a new index: what it is made with."""
        given = {"format": self.version, "model": self.model.fingerprint, "model_name": _absolute_name(self.model.name)}
        return given | {"max_length": self.model.max_length} | self._dense_origin()

    def _dense_origin(self) -> dict[str, Any]:
        if not self.dense:
            return {}
        name = _absolute_name(self.dense.name)
        return {"dense_model": self.dense.fingerprint, "dense_model_name": name, "dimensions": self.dense.dimensions}

    def _check_origin(self) -> None:
        """Check that the index is one of this version, of these models and this language.

        Raises:
            ValueError: it is of others.
        """
        about, model, place = self.about, self.model, self._place
        if about("format") != self.version:
            raise ValueError(
                f"{place}: an index of version {about('format')}, not {self.version}: make it anew, in another "
                f"{self.kind}"
            )
        if self.dense and not self.dense_model:
            raise ValueError(
                f"{place}: has no dense vectors, which are there from the start or not at all; name another "
                f"{self.kind} to make one with {self.dense.name}"
            )
        for encoder, known in ((model, "model"), (self.dense, "dense_model")):
            if encoder and about(known) != encoder.fingerprint:
                raise ValueError(
                    f"{place}: was made with another {known.replace('_', ' ')} than {encoder.name}, "
                    f"{about(f'{known}_name')}; name that, or another {self.kind}"
                )
        if model and self._write and self.dense_model and not self.dense:
            raise ValueError(f"{place}: was made with the dense model {self.dense_model}; name it")
        if model and self._write and about("max_length") != model.max_length:
            raise ValueError(
                f"{place}: was made with `max_length={about('max_length')}`, not {model.max_length}; say so, or name "
                f"another {self.kind}"
            )
        if self._language and about("language_known") and about("language") != self._language:
            raise ValueError(
                f"{place}: was made with `language={about('language')}`; leave the language out, or name another "
                f"{self.kind}"
            )

    def _tell_unfinished(self) -> None:
        if self.about("unfinished") and not self._write:
            print_line(
                f"{self._place}: its last update was interrupted; {len(self):,} documents are in it; to add the "
                "others, repeat the command"
            )


def _absolute_name(name: str) -> str:
    """Return a model's name, of a folder its whole path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
