"""Files and folders that appear whole or not at all, whatever stops the process that writes them."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that takes its place when the block ends well, and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    os.close(descriptor)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o644)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)  # a compiler removes its own output when it fails
        raise


@contextlib.contextmanager
def open_atomic(path: str | Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file that appears at `path` when the block ends well."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def replacing_files(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` when the block ends well, each of them whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as name:
        unfinished = Path(name)
        yield unfinished
        for file in sorted(path for path in unfinished.rglob("*") if path.is_file()):
            place = folder / file.relative_to(unfinished)
            place.parent.mkdir(exist_ok=True)
            os.replace(file, place)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with open_atomic(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def check_writable(path: str | Path, folder: bool = False) -> None:
    """Fail now rather than after the work if the file `path` (or, with `folder`, files in it) could not be written.

    Raises:
        OSError: it could not.
    """
    path = Path(path)
    if not folder and path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, and a file is to be written there")
    parent = path if folder else path.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OSError(f"{parent}: cannot write there: {error.strerror}") from None
