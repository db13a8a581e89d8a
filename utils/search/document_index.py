"""An index of documents: made from a stream, changed by document, searched by a model's vectors and by words."""

import contextlib
import hashlib
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from utils.arguments import check_positive
from utils.console import print_line, progress_bar
from utils.documents.reading import INDEX_STORE
from utils.files import lock_folder
from utils.languages import base_language, detect_language, parse_language
from utils.records import Document, replace_surrogates
from utils.search.analyzer import describe_analyzer
from utils.search.filters import Condition, check_fields
from utils.search.fusion import fuse_scores
from utils.search.index import SPLADE, WORDS
from utils.search.lexical import K1, B, TermCounter
from utils.search.mirror import EngineMirror
from utils.search.passages import Passage, split_document
from utils.search.store import PassageStore, StoredDocument, StoredPassage, document_of
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

FORMAT = 1  # of the folder
READ_AHEAD = 256  # documents whose tokens are counted together; the first of them are what the language is taken from
COMMIT_PASSAGES = 512  # passages that are encoded and kept together; a crash costs few more
FUSED_DEPTH = 100  # documents of each kind of search that are fused


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
    ) -> None:
        self.model, self.long_documents = model, 0
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
    def mean_terms(self) -> float:
        """Mean active terms of a passage."""
        return self._store.mean_terms()

    def describe(self) -> str:
        """Return what is in it, for a line of output."""
        documents, passages = self._store.counts()
        words = f"BM25: k1 {K1}, b {B}; {describe_analyzer(self.language)}"
        return f"{documents:,} documents in {passages:,} passages, {self.mean_terms:.1f} terms each; {words}"

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
        waiting: deque[_Waiting] = deque()  # documents whose vectors are still to come
        total = len(documents) if isinstance(documents, Sized) else None
        bar = progress_bar(total=total, desc="encoding", unit="passages", show=show_progress)
        store.note(unfinished=True)
        self._mirror.behind = True
        store.begin()
        with bar, contextlib.ExitStack() as kept:
            kept.callback(store.commit)  # what is whole when the stream breaks off
            texts = self._read(iter(documents), waiting, counts, bar)
            options = {"window": COMMIT_PASSAGES, "progress": bar}
            for vector in self.model.encode_stream(texts, batch_size=batch_size, **options):
                document = waiting[0]
                document.vectors.append(vector)
                if len(document.vectors) == len(document.passages):
                    self._put(document, counts)
                    waiting.popleft()
        self._mirror.catch_up(show_progress)
        store.note(unfinished=False)
        return Update(*(counts[name] for name in Update._fields))

    def _check_changeable(self) -> None:
        if not self._write:
            raise ValueError(f"{self._folder}: was opened to be searched, not changed")

    def _read(
        self, documents: Iterator[Document], waiting: "deque[_Waiting]", counts: Counter, bar: tqdm
    ) -> Iterator[str]:
        """Yield the texts to encode of new and changed documents, which are added to `waiting`; the bar is advanced for
        the others, and learns how many passages there are."""
        while window := [_storable(document) for document in itertools.islice(documents, READ_AHEAD)]:
            self._store.commit()
            self._store.begin()
            self._note_language(window)
            fresh = []
            for document in window:
                known = self._store.find(document.id)
                same = known and known.fingerprint == _fingerprint(document)
                if (
                    not same
                    or any(document.id == other.document.id for other in waiting)
                    or document.id in {other.id for other in fresh}
                ):
                    fresh.append(document)
                    continue
                relabeled = json.dumps(known.metadata) != json.dumps(document.metadata)
                if relabeled:
                    self._store.put_metadata(known.number, document.metadata)
                counts["relabeled" if relabeled else "unchanged"] += 1
                bar.update()
            texts = [document.full_text for document in fresh]
            for document, text, tokens in zip(fresh, texts, self.model.count_tokens(texts)):
                passages = split_document(self.model, text, tokens, document.title)
                self.long_documents += tokens > self.model.max_length
                waiting.append(_Waiting(document, passages, []))
                if bar.total is not None:
                    bar.total += len(passages) - 1
                yield from (passage.text for passage in passages)

    def _note_language(self, window: Sequence[Document]) -> None:
        """Note, of the first documents with a text, what language all are searched in."""
        texts = [document.full_text for document in window]
        if not self._store.about("language_known") and any(text.strip() for text in texts):
            self._store.note(language=self._language or detect_language(texts), language_known=True)
            self._counter = None  # of a search before the first document

    def _put(self, waiting: "_Waiting", counts: Counter) -> None:
        document = waiting.document
        passages = [
            StoredPassage(text, heading, vector, self._terms.count(text))
            for (text, heading), vector in zip(waiting.passages, waiting.vectors)
        ]
        given = document.id, document.title, document.metadata, _fingerprint(document)
        counts["changed" if self._store.put(*given, passages) else "added"] += 1

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
    ) -> list[Hit]:
        """Return the `top_k` documents that match a query best, best first: those with the highest dot product with its
        vector, with the highest score of BM25 for its words, or, with both, with the highest sum of the two, each
        divided by the query's highest (`fuse_scores`), among the best FUSED_DEPTH or `top_k` of each. Documents that
        share no term with the query are not found.

        Args:
            where: conditions on the documents, see utils.search.filters.parse_filters.

        Raises:
            ValueError: no document has a field that a condition is on, or `top_k` is not at least 1.
        """
        check_positive(top_k=top_k)
        self.check_filters(where)
        if self._mirror.behind:  # a change was broken off
            self._mirror.catch_up()
        queries = {}
        if vector is not None:
            queries[SPLADE] = vector
        if words is not None:
            queries[WORDS] = self._terms.count(words)
        depth = max(top_k, FUSED_DEPTH) if len(queries) > 1 else top_k
        found = [self._search(kind, query, depth, where) for kind, query in queries.items()]
        if len(found) == 1:
            return found[0]
        fused = fuse_scores([{hit.document: hit.score for hit in hits} for hits in found])
        passages = {hit.document: hit.passage for hits in reversed(found) for hit in hits}
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

    def _search(self, kind: str, query: SparseVector, top_k: int, where: Sequence[Sequence[Condition]]) -> list[Hit]:
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

    def _check(self) -> None:
        """Check that the index is one of this version, of this model and language; note of a new one what it is of."""
        about, model, place = self._store.about, self.model, self._folder
        if about("format") is None:
            self._store.note(format=FORMAT)
        if about("format") != FORMAT:
            raise ValueError(f"{place}: an index of version {about('format')}, not {FORMAT}; make it anew")
        if model and about("model") is None:
            name = str(Path(model.name).resolve()) if Path(model.name).is_dir() else model.name
            self._store.note(model=model.fingerprint, model_name=name, max_length=model.max_length)
        if model and about("model") != model.fingerprint:
            raise ValueError(
                f"{place}: was made with another model than {model.name}, {about('model_name')}; name that, or another "
                "folder"
            )
        if model and self._write and about("max_length") != model.max_length:
            raise ValueError(
                f"{place}: was made with `max_length={about('max_length')}`, not {model.max_length}; say so, or name "
                "another folder"
            )
        if self._language and about("language_known") and about("language") != self._language:
            raise ValueError(
                f"{place}: was made with `language={about('language')}`; leave the language out, or name another folder"
            )


def model_of_index(folder: str | Path) -> str | None:
    """Return the name, or the folder, of the model that an index was made with; None where there is no index.

    Raises:
        ValueError, OSError: it is damaged, or cannot be read.
    """
    file = Path(folder, INDEX_STORE)
    if not file.is_file():
        return None
    store = PassageStore(file)
    try:
        return store.about("model_name")
    finally:
        store.close()


class _Waiting(NamedTuple):
    document: Document
    passages: list[Passage]
    vectors: list[SparseVector]


def _storable(document: Document) -> Document:
    """Return the document as it is stored and read again: its texts without lone surrogates, which UTF-8 cannot hold,
    and its metadata as JSON has them, other objects as texts."""
    texts = {name: replace_surrogates(getattr(document, name)) for name in ("id", "title", "text")}
    try:
        metadata = replace_surrogates(json.loads(json.dumps(document.metadata, default=str)))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"document '{texts['id']}': its metadata cannot be kept: {error}") from None
    return document.model_copy(update={**texts, "metadata": metadata})


def _fingerprint(document: Document) -> bytes:
    return hashlib.blake2b(f"{document.title}\0{document.text}".encode(), digest_size=16).digest()
