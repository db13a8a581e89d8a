"""A journal of long work: its results as they come, so that it can go on after an interrupt or a crash."""

import contextlib
import json
import os
import weakref
from collections.abc import Hashable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

from utils.console import print_line
from utils.files import lock

JOURNAL_SUFFIX = ".journal"  # of the file's name, after that of the output


class Journal:
    """A JSON Lines file of [key, value] pairs that grows with each result; its first line says of what work they are.
    The file is locked until the process ends, however it ends. Lines that a crash left broken are left out and said,
    once: the first line, written again behind them, tells a later run so.

    Args:
        path: the file; it stays only if there is a result.
        work: what all results depend on; a journal of other work is refused.
        resume: go on with the file that is there.

    Attributes:
        found: results, value by key; keys are text or numbers.
        close: ends the work on the file, as the end of the process does.

    Raises:
        ValueError: there are results and `resume` is not asked for, or they are of other work, or the file is none of
            a journal, or another run has it.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: str | Path, work: dict[str, Any], resume: bool = False) -> None:
        self.path, self.work = Path(path), json.loads(json.dumps(work))
        self.found: dict[Hashable, Any] = {}
        self._file = _open_locked(self.path)
        self.close = weakref.finalize(self, _close, self._file, self.path)
        try:
            self._read(resume)
        except BaseException:
            self.close()
            raise

    def _read(self, resume: bool) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        cut = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        first_line = _first_line(self.work)
        if lines in ([], [first_line]) and (lines or first_line.startswith(cut)):  # it ended before its first result
            os.truncate(self.path, 0)
            return
        headers, broken = [], []
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
                if isinstance(value, dict):
                    headers.append(value)
                    broken = []
                elif isinstance(value, list) and len(value) == 2:
                    self.found[value[0]] = value[1]
                else:
                    broken.append(number)
            except (ValueError, TypeError, RecursionError):
                broken.append(number)
        if not headers and not self.found:
            raise ValueError(f"{self.path}: is not a journal of interrupted work; move this file away")
        if not resume:
            raise ValueError(f"{self.path}: holds earlier work; go on with it by `resume=True`, or remove this file")
        for header in (header for header in headers if header != self.work):
            name = next(k for k in {**header, **self.work} if header.get(k) != self.work.get(k))
            raise ValueError(
                f"{self.path}: was begun with {name} {header.get(name)}, not {self.work.get(name)}; "
                "resume with the same, or remove this file"
            )
        if cut:
            broken.append(len(lines) + 1)
            os.truncate(self.path, sum(map(len, lines)))
        if broken:
            lines_left_out = f"line {broken[0]}" + (f" and {len(broken) - 1:,} more" if len(broken) > 1 else "")
            kept = "are kept" if headers else f"are taken to be of {json.dumps(self.work)}"
            print_line(f"{self.path}: left out {lines_left_out}, broken by a crash; the other results {kept}")
            self._write_header()

    def add(self, pairs: dict[Hashable, Any]) -> None:
        """Add results; when this returns, they outlive the process."""
        self.found.update(pairs)
        if not os.fstat(self._file.fileno()).st_size:
            self._write_header()
        self._file.writelines(json.dumps(pair) + "\n" for pair in pairs.items())
        self._file.flush()

    def _write_header(self) -> None:
        self._file.write(_first_line(self.work).decode())
        self._file.flush()

    def remove(self) -> None:
        """Remove the file, once the results stand elsewhere."""
        self.path.unlink(missing_ok=True)
        self.close()


def _first_line(work: dict[str, Any]) -> bytes:
    return (json.dumps(work) + "\n").encode()


def _open_locked(path: Path) -> TextIO:
    """Open a file to append to, which no other process has open so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a", encoding="utf-8")
        if not lock(file.fileno()):
            file.close()
            raise ValueError(f"{path}: another run is at work on it; let it end, or name another output file")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # the run that had it has removed it in between


def _close(file: TextIO, path: Path) -> None:
    """Close the file, which ends the lock, and remove it if it is empty."""
    with contextlib.suppress(OSError):
        if not os.fstat(file.fileno()).st_size:
            path.unlink()
    with contextlib.suppress(OSError):
        file.close()


@contextlib.contextmanager
def lock_journal(path: str | Path) -> Iterator[None]:
    """Keep other runs that have a journal at `path`, or lock it, out until the block ends; an earlier run's stays.

    Raises:
        ValueError: another run has it.
        OSError: the file cannot be written.
    """
    file = _open_locked(Path(path))
    try:
        yield
    finally:
        _close(file, Path(path))


def journal_key(*parts: str) -> str:
    """Return a key for a result that depends on `parts`: their hash, 32 hexadecimal digits."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
