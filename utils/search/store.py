"""The store of an index: its documents and their passages with texts and vectors, in one SQLite file.

It is what the index holds. What the engine searches is made of it, and can be made again; `changes` are the passages
that the engine has yet to take in, or to drop.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.splade.vectors import SparseVector

PASSAGE_BITS = 20  # of a passage's number, which one of its document it is; the higher ones say which document
MAX_VARIABLES = 500  # in one statement
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE fields (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, metadata TEXT NOT NULL,
    fingerprint BLOB NOT NULL);
CREATE TABLE passages (
    number INTEGER PRIMARY KEY, heading TEXT NOT NULL, terms INTEGER NOT NULL, words INTEGER NOT NULL);
CREATE TABLE contents (
    number INTEGER PRIMARY KEY, text TEXT NOT NULL,
    term_indices BLOB NOT NULL, term_values BLOB NOT NULL, word_indices BLOB NOT NULL, word_values BLOB NOT NULL,
    dense BLOB);
CREATE TABLE changes (number INTEGER PRIMARY KEY);
"""


class StoredDocument(NamedTuple):
    """A document without its text. `number` is its place in the store, `fingerprint` that of title and text."""

    number: int
    id: str
    title: str
    metadata: dict[str, Any]
    fingerprint: bytes


class StoredPassage(NamedTuple):
    """A passage.

    Attributes:
        text: as it is encoded.
        heading: the one that most of it stands under, "" before the first.
        terms: the model's vector, whose values are stored as float16.
        words: how often each of BM25's terms stands in it.
        dense: [dimensions], stored as float16; None without a dense model, and for a text without terms and words.
    """

    text: str
    heading: str
    terms: SparseVector
    words: SparseVector
    dense: np.ndarray | None = None


def document_of(passage: int) -> int:
    """Return the number of a passage's document."""
    return passage >> PASSAGE_BITS


class PassageStore:
    """Documents by id, and their passages by number. Changes are kept once `commit` returns, whatever then happens to
    the process or the machine; each of them is whole. Several threads may read at once.

    All methods raise OSError where the disk fails, and ValueError where the file is damaged.

    Args:
        file: where it is, made if missing or empty; None to keep it in memory.

    Raises:
        ValueError: the file is no such store.
        OSError: it cannot be opened.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._lock = threading.RLock()
        self._file = file
        with self._named_errors():
            name = str(file) if file else ":memory:"
            self._database = sqlite3.connect(name, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master")}
            if not tables:
                self._database.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            elif "changes" not in tables:
                self._database.close()
                raise ValueError(f"{file}: is no index, but another database")

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise OSError(f"{self._file}: {error}") from None
            except sqlite3.DatabaseError as error:
                raise ValueError(f"{self._file}: is no index, or a damaged one: {error}") from None

    def close(self) -> None:
        self._database.close()

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._named_errors():
            return self._database.execute(statement, values).fetchall()

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._named_errors():
            self._database.executemany(statement, rows)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Make the changes of the block all, or none where it is broken off."""
        with self._named_errors():
            self._database.execute("SAVEPOINT whole")
            try:
                yield
            except BaseException:
                if self._database.in_transaction:  # a full disk may have ended it
                    self._database.execute("ROLLBACK TO whole")
                    self._database.execute("RELEASE whole")
                raise
            self._database.execute("RELEASE whole")

    def begin(self) -> None:
        """Begin a transaction, unless one has begun."""
        if not self._database.in_transaction:
            self._all("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Keep what has changed since `begin`."""
        if self._database.in_transaction:
            try:
                self._all("COMMIT")
            except OSError:
                with contextlib.suppress(OSError):
                    self._all("ROLLBACK")
                raise

    def about(self, name: str) -> Any:
        """Return what is noted of the index by this name, None if nothing is."""
        found = self._all("SELECT value FROM about WHERE name = ?", (name,))
        return json.loads(found[0][0]) if found else None

    def note(self, **values: Any) -> None:
        """Note values of the index by name."""
        self._many("INSERT OR REPLACE INTO about VALUES (?, ?)", [(n, json.dumps(v)) for n, v in values.items()])

    def fields(self) -> dict[str, int]:
        """Return the numbers of the fields of all metadata, by name."""
        return dict(self._all("SELECT name, number FROM fields"))

    def add_field(self, name: str) -> int:
        """Add a field of metadata; return its number."""
        with self._whole():
            self._all("INSERT INTO fields (name) VALUES (?)", (name,))
            return self.fields()[name]

    def counts(self) -> tuple[int, int]:
        """Return how many documents and how many passages there are."""
        return self._all("SELECT (SELECT COUNT(*) FROM documents), (SELECT COUNT(*) FROM passages)")[0]

    def count_searchable(self) -> int:
        """Return how many passages have a term or a word to be found by."""
        return self._all("SELECT COUNT(*) FROM passages WHERE terms > 0 OR words > 0")[0][0]

    def mean_terms(self) -> float:
        """Return the mean number of active terms of a passage, 0 without one."""
        return self._all("SELECT AVG(terms) FROM passages")[0][0] or 0.0

    def mean_words(self) -> float:
        """Return the mean number of words of a passage that BM25 counts, 1 without one."""
        return self._all("SELECT AVG(words) FROM passages")[0][0] or 1.0

    def term_frequencies(self) -> SparseVector:
        """Return in how many passages each of the model's terms is active."""
        rows = b"".join(indices for (indices,) in self._all("SELECT term_indices FROM contents"))
        terms, counts = np.unique(np.frombuffer(rows, np.int32), return_counts=True)
        return SparseVector(terms, counts.astype(np.float32))

    def vector_bytes(self) -> tuple[int, int, int]:
        """Return the bytes of all vectors: the model's, of words, and dense ones."""
        lengths = "term_indices) + LENGTH(term_values", "word_indices) + LENGTH(word_values", "dense"
        sums = ", ".join(f"COALESCE(SUM(LENGTH({columns})), 0)" for columns in lengths)
        return self._all(f"SELECT {sums} FROM contents")[0]

    def ids(self) -> Iterator[str]:
        """Yield the ids of all documents."""
        for (name,) in self._all("SELECT id FROM documents ORDER BY number"):
            yield name

    def find(self, name: str) -> StoredDocument | None:
        """Return the document with this id."""
        return next(map(_document, self._all("SELECT * FROM documents WHERE id = ?", (name,))), None)

    def documents(self, numbers: Iterable[int]) -> dict[int, StoredDocument]:
        """Return documents by number."""
        return {row[0]: _document(row) for row in self._select("documents", numbers)}

    def passages(self, numbers: Iterable[int]) -> dict[int, StoredPassage]:
        """Return passages by number; those that are none are left out."""
        numbers = list(numbers)
        headings = {row[0]: row[1] for row in self._select("passages", numbers)}
        found = {}
        for number, text, *blobs, dense in self._select("contents", numbers):
            terms, words = (
                SparseVector(np.frombuffer(indices, np.int32), np.frombuffer(values, np.float16).astype(np.float32))
                for indices, values in (blobs[:2], blobs[2:])
            )
            dense = None if dense is None else np.frombuffer(dense, np.float16).astype(np.float32)
            found[number] = StoredPassage(text, headings[number], terms, words, dense)
        return found

    def passages_of(self, document: int) -> list[int]:
        """Return the numbers of a document's passages, in order."""
        bounds = document << PASSAGE_BITS, (document + 1) << PASSAGE_BITS
        return [row[0] for row in self._all("SELECT number FROM passages WHERE number >= ? AND number < ?", bounds)]

    def _select(self, table: str, numbers: Iterable[int]) -> Iterator[tuple]:
        numbers = list(numbers)
        for start in range(0, len(numbers), MAX_VARIABLES):
            part = numbers[start : start + MAX_VARIABLES]
            yield from self._all(f"SELECT * FROM {table} WHERE number IN ({','.join('?' * len(part))})", part)

    def put(
        self, name: str, title: str, metadata: dict[str, Any], fingerprint: bytes, passages: Sequence[StoredPassage]
    ) -> bool:
        """Add a document, whose number is one more than the highest, or replace the one with its id, whose number it
        takes; return whether there was one."""
        with self._whole():
            known = self.remove(name)
            next_number = self._all("SELECT COALESCE(MAX(number) + 1, 0) FROM documents")[0][0]
            document = next_number if known is None else known
            given = document, name, title, json.dumps(metadata), fingerprint
            self._all("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", given)
            first = document << PASSAGE_BITS
            rows, contents = [], []
            for number, (text, heading, terms, words, dense) in enumerate(passages, first):
                rows.append((number, heading, len(terms.indices), int(words.values.sum())))
                blobs = (blob for vector in (terms, words) for blob in _blobs(vector))
                kept = dense is not None and (len(terms.indices) or len(words.indices))
                contents.append((number, text, *blobs, dense.astype(np.float16).tobytes() if kept else None))
            self._many("INSERT INTO passages VALUES (?, ?, ?, ?)", rows)
            self._many("INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?, ?)", contents)
            self._note_changes(document)
            return known is not None

    def put_metadata(self, document: int, metadata: dict[str, Any]) -> None:
        """Replace a document's metadata."""
        with self._whole():
            self._all("UPDATE documents SET metadata = ? WHERE number = ?", (json.dumps(metadata), document))
            self._note_changes(document)

    def remove(self, name: str) -> int | None:
        """Remove the document with this id; return the number that it had, None if there was none."""
        with self._whole():
            found = self.find(name)
            if not found:
                return None
            self._note_changes(found.number)
            bounds = found.number << PASSAGE_BITS, (found.number + 1) << PASSAGE_BITS
            for table in ("passages", "contents"):
                self._all(f"DELETE FROM {table} WHERE number >= ? AND number < ?", bounds)
            self._all("DELETE FROM documents WHERE number = ?", (found.number,))
            return found.number

    def _note_changes(self, document: int) -> None:
        bounds = document << PASSAGE_BITS, (document + 1) << PASSAGE_BITS
        statement = "INSERT OR IGNORE INTO changes SELECT number FROM passages WHERE number >= ? AND number < ?"
        self._all(statement, bounds)

    def change_all(self) -> None:
        """Take all passages for changed."""
        self._all("INSERT OR IGNORE INTO changes SELECT number FROM passages")

    def count_changes(self) -> int:
        """Return how many passages have changed."""
        return self._all("SELECT COUNT(*) FROM changes")[0][0]

    def changes(self, limit: int) -> list[int]:
        """Return the lowest numbers of passages that have changed."""
        return [row[0] for row in self._all("SELECT number FROM changes ORDER BY number LIMIT ?", (limit,))]

    def settle(self, last: int) -> None:
        """Forget the changes up to this passage."""
        self._all("DELETE FROM changes WHERE number <= ?", (last,))


def _blobs(vector: SparseVector) -> tuple[bytes, bytes]:
    values = np.minimum(vector.values, np.finfo(np.float16).max)  # a count may be higher
    return vector.indices.astype(np.int32).tobytes(), values.astype(np.float16).tobytes()


def _document(row: tuple) -> StoredDocument:
    number, name, title, metadata, fingerprint = row
    return StoredDocument(number, name, title, json.loads(metadata), fingerprint)
