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

import torch  # loads its OpenMP runtime first, so that the library shares its threads
from filelock import FileLock

from utils.console import print_line
from utils.files import cache_folder, is_private

FLAGS = "-std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-signed-zeros -fPIC -shared"
COMPILE_SECONDS = 300  # after which a compiler is given up

_LOADING = threading.Lock()


def load_library(folder: Path, name: str, flags: str = "") -> ctypes.CDLL | None:
    """Load the library called `name`, built from the *.cpp and *.h in `folder` with these `flags` of the compiler;
    compile it if the cache does not have it.

    Of several threads and processes one compiles, and the others wait for it.

    Returns:
        None, after a line that says why, where it cannot be compiled with a C++ compiler (g++ or clang++, or what CXX
        names and its options) or cannot be kept.
    """
    with _LOADING:
        return _load_once(folder, name, flags)


@functools.cache
def _load_once(folder: Path, name: str, flags: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(build_library(folder, name, flags)))
    except (OSError, NotImplementedError) as error:
        print_line(f"no C++ ({name}), so torch's own operations are used, which are slower: {error}")
        return None


def build_library(folder: Path, name: str, flags: str = "") -> Path:
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
    options = [*compiler[1:], *FLAGS.split(), *flags.split(), *_openmp()]
    info = os.stat(program)
    key = hashlib.sha256(f"{[program, *options]} {info.st_size} {info.st_mtime_ns}".encode())
    for file in sorted(folder.iterdir()):
        key.update(file.read_bytes())
    cache, stem = cache_folder(), f"{name}-{key.hexdigest()[:16]}"
    with FileLock(cache / f"{stem}.lock"):
        for library in cache.glob(f"{stem}-*.so"):
            if is_private(library) and library.name == f"{stem}-{_checksum(library)}.so":
                return library
        print_line(f"compiling C++ ({name}), once; it takes some seconds")
        with tempfile.TemporaryDirectory(dir=cache) as unfinished:
            compiled = Path(unfinished, "library.so")
            _compile([program, *options, "-o", str(compiled), *map(str, sorted(folder.glob("*.cpp")))])
            compiled.chmod(0o600)
            library = cache / f"{stem}-{_checksum(compiled)}.so"
            os.replace(compiled, library)
    print_line(f"compiled -> {library}")
    return library


def _openmp() -> list[str]:
    """Return the options that run loops on several threads; Apple's compiler has them, but not the library, which comes
    with torch."""
    if platform.system() != "Darwin":
        return ["-fopenmp"]
    return ["-Xpreprocessor", "-fopenmp", f"-L{Path(torch.__file__).parent / 'lib'}", "-lomp"]


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
