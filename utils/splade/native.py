"""C++ sources of this folder, compiled at their first use into the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import torch  # noqa: F401  loads its OpenMP runtime first, so that the library shares its threads
from filelock import FileLock

from utils.console import print_line
from utils.files import cache_folder, is_private

# Sums may be reordered, which lets loops vectorize; NaN and infinity keep their meaning.
FLAGS = "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -fopenmp -fPIC -shared"
COMPILE_SECONDS = 300  # after which a compiler is given up

_LOADING = threading.Lock()


def load_library(name: str, folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """Load the library built from `name`.h and `name`*.cpp in `folder`; compile it if the cache does not have it.

    Of several threads and processes one compiles, and the others wait for it.

    Returns:
        None on systems other than Linux on x86-64, and on a processor for which the library's `supported()` returns 0;
        also, after a line that says why, where it cannot be compiled with a GNU C++ compiler (g++, or what CXX names
        and its options) or cannot be kept.
    """
    with _LOADING:
        return _load_once(name, folder)


@functools.cache
def _load_once(name: str, folder: Path) -> ctypes.CDLL | None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    try:
        library = ctypes.CDLL(str(build_library(name, folder)))
    except (OSError, NotImplementedError) as error:
        print_line(f"no C++ ({name}), so torch's own operations are used, which are slower: {error}")
        return None
    return library if library.supported() else None


def build_library(name: str, folder: Path) -> Path:
    """Return the compiled library, from the cache if it is there, whole, and of this user or root alone.

    Its name tells sources, flags and compiler, and its own contents, so that a damaged file is known before it is
    loaded.

    Raises:
        OSError: there is no compiler or no folder to write in, or the sources do not compile.
        NotImplementedError: the cache folder is on a file system without locks.
    """
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    program = shutil.which(compiler[0])
    if program is None:
        raise FileNotFoundError(f"there is no compiler '{compiler[0]}'; install g++, or name another in CXX")
    sources = sorted(folder.glob(f"{name}*.cpp"))
    info = os.stat(program)
    key = hashlib.sha256(f"{[program, *compiler[1:]]} {info.st_size} {info.st_mtime_ns} {FLAGS}".encode())
    for file in [folder / f"{name}.h", *sources]:
        key.update(file.read_bytes())
    cache, stem = cache_folder(), f"{name}-{key.hexdigest()[:16]}"
    with FileLock(cache / f"{stem}.lock"):
        for library in cache.glob(f"{stem}-*.so"):
            if is_private(library) and library.name == f"{stem}-{_checksum(library)}.so":
                return library
        print_line(f"compiling C++ ({name}), once; it takes some seconds")
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            compiled = Path(unfinished, "library.so")
            _compile([program, *compiler[1:], *FLAGS.split(), "-o", str(compiled), *map(str, sources)])
            compiled.chmod(0o600)
            library = cache / f"{stem}-{_checksum(compiled)}.so"
            os.replace(compiled, library)
    print_line(f"compiled -> {library}")
    return library


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} has not ended after {COMPILE_SECONDS} seconds") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        raise OSError(f"{command[0]}: {next((line for line in lines if 'error' in line), lines[0])}")


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
