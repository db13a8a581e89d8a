"""A JSON Lines file of vectors, written by one process or by several, that goes on after an interrupt."""

import contextlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from utils.files import open_atomic
from utils.journal import JOURNAL_SUFFIX, lock_journal
from utils.records import Document

LINE_FEED = "\x1e"  # stands, in the journal, for that within an entry of two lines; JSON has no such character
WINDOW = 512  # documents that are encoded together, and together again where an interrupt came between them


class VectorLines:
    """A file with a line for each document, in their order. Until it is whole, the lines are in a journal beside it,
    FILE.journal or, of N processes, FILE.1-of-N.journal and so on: each process reads all documents, and encodes every
    Nth window of WINDOW. Begun again with the same work, it keeps the windows that are there, up to the first that is
    cut off or has a document that has changed.

    Args:
        path: the file.
        work: what the lines depend on beside the documents.
        process, processes: which process this is, from 0, and how many there are.

    Attributes:
        kept: vectors of this process that an earlier run has left.

    Raises, when it is entered:
        ValueError: the journal is of other work, or it is none, or another run has it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: str | Path, work: dict[str, Any], process: int = 0, processes: int = 1) -> None:
        self.path, self.work, self.process, self.processes = Path(path), work, process, processes
        self.kept = self._total = self._added = 0
        self._header = (json.dumps(work) + "\n").encode()

    def __enter__(self) -> "VectorLines":
        journal = self._journal(self.process)
        with contextlib.ExitStack() as opened:
            opened.enter_context(lock_journal(journal))
            self._file = opened.enter_context(journal.open("r+b"))
            self._check_header(journal)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # of a full disk, which `add` or `join` has told
            if self.processes == 1 and self._file.seek(0, os.SEEK_END) == len(self._header):
                self._file.truncate(0)  # an empty journal does not stay
        with contextlib.suppress(OSError):
            self._opened.close()

    def _journal(self, process: int) -> Path:
        part = f".{process + 1}-of-{self.processes}" if self.processes > 1 else ""
        return self.path.with_name(f"{self.path.name}{part}{JOURNAL_SUFFIX}")

    def _check_header(self, journal: Path) -> None:
        line = self._file.readline()
        if line == self._header:
            return
        if self._header.startswith(line):  # empty, or cut by a crash
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._header)
            return
        try:
            begun = dict(json.loads(line))
        except (ValueError, TypeError):
            raise ValueError(f"{journal}: is not a journal of interrupted work; move this file away") from None
        name = next(name for name in {**self.work, **begun} if begun.get(name) != self.work.get(name))
        raise ValueError(
            f"{journal}: was begun with {name} {begun.get(name)}, not {self.work.get(name)}; go on with the same, or "
            "remove this file"
        )

    def missing(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents of this process whose lines are not there; `add` is to be called for each, in order."""
        documents, matching = iter(documents), True
        for number in itertools.count():
            window = list(itertools.islice(documents, WINDOW))
            if not window:
                break
            self._total += len(window)
            if number % self.processes != self.process:
                continue
            if matching:
                start = self._file.tell()
                lines = [self._file.readline() for _ in window]
                pairs = zip(lines, window)
                matching = all(line.startswith(_fingerprint(d)) and line.endswith(b"\n") for line, d in pairs)
                if matching:
                    self.kept += len(window)
                    continue
                self._file.seek(start)
                self._file.truncate()
            yield from window

    def add(self, document: Document, line: str, terms: int) -> None:
        """Add a document's line, of a vector of so many terms. It may be two lines, as some search engines have it."""
        entry = line.replace("\n", LINE_FEED).encode()
        self._file.write(b"%s %d %s\n" % (_fingerprint(document), terms, entry))
        self._added += 1
        if self._added % WINDOW == 0:
            self._file.flush()

    def flush(self) -> None:
        """Write the lines to the disk, where other processes read them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def join(self) -> tuple[int, int]:
        """Write the file of the lines of all processes, when these have flushed theirs, and remove the journals;
        return how many documents there are, and their terms.

        Raises:
            OSError: another process' journal is not here, or not whole; or the file cannot be written.
        """
        count = terms = 0
        names = [self._journal(process) for process in range(self.processes)]
        with contextlib.ExitStack() as opened, open_atomic(self.path) as file:
            journals = [opened.enter_context(name.open("rb")) for name in names if name.is_file()]
            whole = len(journals) == self.processes and all(part.readline() == self._header for part in journals)
            for start in range(0, self._total if whole else 0, WINDOW):
                part = journals[start // WINDOW % self.processes]
                for entry in itertools.islice(part, min(WINDOW, self._total - start)):
                    _, length, line = entry.decode().split(" ", 2)
                    file.write(line.replace(LINE_FEED, "\n"))
                    count, terms = count + 1, terms + int(length)
            if count < self._total:
                raise OSError(
                    f"{self.path}: the journals of the {self.processes} processes are not all in its folder; copy them "
                    "there, and repeat the command: nothing is encoded anew"
                )
        for name in names:
            name.unlink()
        return count, terms


def _fingerprint(document: Document) -> bytes:
    """Return a hash of what a document's line depends on, 32 hexadecimal digits."""
    parts = [document.id, document.full_text, document.metadata]
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest().encode()
