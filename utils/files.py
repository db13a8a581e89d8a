"""Files and folders that appear whole or not at all, whatever stops the process that writes them."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

try:
    import fcntl
except ImportError:  # Windows, where two runs at once are not noticed
    fcntl = None

UNFINISHED = ".unfinished-"  # begins the name of a folder whose files are being written, stands in that of a file


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path` that takes its place when the block ends well, and is removed otherwise. A
    link stays, and its target is replaced; a pipe or a device is written to at once."""
    path = Path(path)
    if is_pipe(path):
        yield path
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    descriptor, name = _create_locked(path)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(0o644)
        _move(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)  # a compiler removes its own output when it fails
        raise
    finally:
        if fcntl:
            os.close(descriptor)


def _unfinished_prefix(path: Path) -> str:
    return f".{path.name}{UNFINISHED}"


def _create_locked(path: Path) -> tuple[int, str]:
    """Create the temporary file of `path`, locked for as long as the descriptor that is returned is open."""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_unfinished_prefix(path))
        if not fcntl:
            os.close(descriptor)  # Windows moves no file that is open.
            return descriptor, name
        if lock(descriptor) and os.path.exists(name):
            return descriptor, name
        os.close(descriptor)  # Another process has removed it as a leftover before it was locked.


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` that no process has locked: those that wrote them were killed."""
    for leftover in path.parent.glob(f"{glob.escape(_unfinished_prefix(path))}*") if fcntl else ():
        with contextlib.suppress(OSError), leftover.open("r+b") as file:  # in use, removed by another, or without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _move(file: Path, place: Path) -> None:
    try:
        os.replace(file, place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(file, place)  # a file that is itself a mount point can be overwritten, not replaced
        file.unlink()


def is_pipe(path: str | Path) -> bool:
    """Return whether a path is a pipe or a device, which is no file that could be replaced."""
    return Path(path).exists() and not Path(path).is_file()


@contextlib.contextmanager
def open_atomic(path: str | Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file that appears at `path` when the block ends well."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def replacing_files(folder: str | Path, stale: Sequence[str] = (), last: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` when the block ends well, each of them whole.

    Args:
        stale: patterns, relative to `folder`, of files that go when the new ones are in place and not among them.
        last: name of a file without which the others are nothing. It goes first and comes last, so that a process that
            is killed in between leaves no mixture of old and new that could be taken for whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for killed in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(killed)
    # Within the folder: it may be a mount point, out of which nothing can be moved, and its parent not writable.
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as name:
        unfinished = Path(name)
        yield unfinished
        files = {path.relative_to(unfinished) for path in unfinished.rglob("*") if path.is_file()}
        if last:
            with contextlib.suppress(OSError):  # not there, or a mount point
                (folder / last).unlink()
        for file in sorted(files - {Path(last or "")}):
            _move_into(folder, unfinished, file)
        for path in {path for pattern in stale for path in folder.glob(pattern) if path.is_file()}:
            if path.relative_to(folder) not in files:
                path.unlink()
                if path.parent != folder and not any(path.parent.iterdir()):
                    path.parent.rmdir()
        if last and Path(last) in files:
            _move_into(folder, unfinished, Path(last))


def _move_into(folder: Path, unfinished: Path, file: Path) -> None:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (unfinished / file).chmod(0o644)
    _move(unfinished / file, folder / file)


def lock(descriptor: int, shared: bool = False) -> bool:
    """Lock an open file or folder for this process, or for all that share it, until it is closed, however the process
    ends; return False if another process has locked it. A file system without locks locks nothing."""
    if fcntl:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


@contextlib.contextmanager
def lock_folder(folder: str | Path, shared: bool = False) -> Iterator[None]:
    """Keep other processes that lock the folder out of it until the block ends; those that share it only from changing
    it.

    Raises:
        ValueError: another process has it.
    """
    if not fcntl:
        yield
        return
    os.makedirs(folder, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not lock(descriptor, shared):
            raise ValueError(f"{folder}: another run is at work on it; let it end, or name another folder")
        yield
    finally:
        os.close(descriptor)


def append_line(path: str | Path, line: str) -> None:
    """Append a line to a UTF-8 file, all of it or nothing; it outlives a crash once the call returns. Lines of several
    processes and threads do not mix.

    Raises:
        OSError: it cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        torn = file.read(1) not in (b"", b"\n")  # by another program, or a machine that went down
        data = f"{chr(10) * torn}{line}\n".encode()
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with open_atomic(path) as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def check_writable(path: str | Path, folder: bool = False) -> None:
    """Fail now rather than after the work if the file `path` (or, with `folder`, files in it) could not be written.
    Nothing is left behind; folders that are missing are made by whatever writes there.

    Raises:
        OSError: it could not.
    """
    path = Path(path)
    if not folder and path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, and a file is to be written there")
    if not folder and is_pipe(path):
        return
    parent = path.resolve() if folder else path.resolve().parent
    try:
        there = next(place for place in (parent, *parent.parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"{parent}: cannot write there: {error.strerror}") from None


def cache_folder() -> Path:
    """Return a folder that this user, and nobody else, can write in: in XDG_CACHE_HOME, in ~/.cache or, for want of
    them, in the system's folder for temporary files.

    Raises:
        OSError: there is none.
    """
    caches = [os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")]
    folders = [Path(cache, "splade-toolkit") for cache in caches if os.path.isabs(cache)]
    user = os.getuid() if hasattr(os, "getuid") else ""  # Windows, where each user has such a folder
    for folder in [*folders, Path(tempfile.gettempdir(), f"splade-toolkit-{user}")]:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if is_private(folder) and os.access(folder, os.W_OK):
                return folder
    raise PermissionError("there is no folder to keep it in that others cannot write to; name one in XDG_CACHE_HOME")


def is_private(path: Path) -> bool:
    """Return whether this user or root owns the file or folder, and nobody else can write to it."""
    if not hasattr(os, "getuid"):  # Windows, whose access lists Python does not read
        return True
    info = path.stat()
    return info.st_uid in (0, os.getuid()) and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def fingerprint(path: str | Path | None) -> str | None:
    """Return a hash of what a file holds, None for no file."""
    if path is None:
        return None
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
