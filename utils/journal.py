"""A journal of long work: its results as they come, so that it can go on after an interrupt or a crash."""

import json
import os
from collections.abc import Hashable
from hashlib import blake2b
from pathlib import Path
from typing import Any


class Journal:
    """A JSON Lines file of [key, value] pairs that grows with each result; its first line says of what work they are.

    Args:
        path: the file; the first result creates it.
        work: what all results depend on; a journal of other work is refused.
        resume: go on with the file that is there.

    Attributes:
        found: results, value by key; keys are text or numbers.

    Raises:
        ValueError: there is a journal and `resume` is not asked for, or it is of other work.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path, work: dict[str, Any], resume: bool = False) -> None:
        self.path, self.work = Path(path), json.loads(json.dumps(work))
        self.found: dict[Hashable, Any] = {}
        self._file = None
        if not self.path.exists():
            return
        if not resume:
            raise ValueError(f"{self.path}: holds earlier work; go on with it by --resume, or remove this file")
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):  # cut short by a crash
            os.truncate(self.path, sum(map(len, lines[:-1])))
            lines.pop()
        if not lines:
            self.path.unlink()
            return
        try:
            before, *pairs = map(json.loads, lines)
            self.found = dict(pairs)
        except (ValueError, TypeError):
            raise ValueError(f"{self.path}: is not a journal of interrupted work; remove this file") from None
        if before != self.work:
            name = next(k for k in {**before, **self.work} if before.get(k) != self.work.get(k))
            raise ValueError(
                f"{self.path}: was begun with {name} {before.get(name)}, not {self.work.get(name)}; "
                "resume with the same, or remove this file"
            )

    def add(self, pairs: dict[Hashable, Any]) -> None:
        """Add results; when this returns, they outlive the process."""
        self.found.update(pairs)
        if self._file is None:
            fresh = not self.path.exists()
            self._file = self.path.open("a", encoding="utf-8")
            if fresh:
                self._file.write(json.dumps(self.work) + "\n")
        self._file.writelines(json.dumps(pair) + "\n" for pair in pairs.items())
        self._file.flush()

    def remove(self) -> None:
        """Remove the file, once the results stand elsewhere."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)


def journal_key(*parts: str) -> str:
    """Return a key for a result that depends on `parts`: their hash, 32 hexadecimal digits."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
