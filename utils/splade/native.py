"""C++ compiled once: beside its sources when the toolkit is installed, else at its first use, in the user's cache."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch  # loads its OpenMP runtime first, so that the library shares its threads
from filelock import FileLock

from utils.console import print_line
from utils.files import cache_folder, is_private

FLAGS = "-std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fno-signed-zeros -fPIC -shared"
COMPILE_SECONDS = 300  # after which a compiler is given up


class CompileError(OSError):
    """A compiler does not take the sources or the options."""


def load_library(sources: Path, name: str, flags: str = "", beside: bool = False) -> ctypes.CDLL:
    """Load the library called `name`; see `build_library`."""
    return ctypes.CDLL(str(build_library(sources, name, flags, beside)))


def build_library(sources: Path, name: str, flags: str = "", beside: bool = False) -> Path:
    """Return the library compiled from the *.cpp and *.h in `sources` with these `flags` by g++, or by what CXX names
    with its options: the one beside the sources or in the cache that is whole and of this user or root alone, else a
    new one, in the cache or, if `beside` and that can be written, or for want of a cache, beside the sources.

    Its name tells sources, flags and CXX, and its own contents, so that a damaged file is known before it is loaded. Of
    several threads and processes one compiles, and the others wait for it.

    Raises:
        CompileError: the sources do not compile.
        OSError: there is no compiler or no folder to write in.
        NotImplementedError: the folder is on a file system without locks.
    """
    compiler = os.environ.get("CXX", "").strip() or "g++"
    try:
        command, *options = shlex.split(compiler)
    except ValueError as error:
        raise OSError(f"CXX={compiler}: {error}") from None
    options += [*FLAGS.split(), *flags.split()]
    key = hashlib.sha256(f"{compiler} {options} {platform.machine()} {platform.system()}".encode())
    for file in sorted([*sources.glob("*.h"), *sources.glob("*.cpp")]):
        key.update(file.read_bytes())
    stem, built = f"{name}-{key.hexdigest()[:16]}", sources / "built"
    if library := _find(built, stem):
        return library
    if beside:
        with contextlib.suppress(OSError):
            built.mkdir(exist_ok=True)
        beside = built.is_dir() and os.access(built, os.W_OK)
    try:
        folder = built if beside else cache_folder()
    except PermissionError:
        if not os.access(sources, os.W_OK) or (built.exists() and not built.is_dir()):
            raise
        built.mkdir(exist_ok=True)
        folder = built
    with FileLock(folder / f"{stem}.lock"):
        if library := _find(folder, stem):
            return library
        program = shutil.which(command)
        if program is None:
            raise FileNotFoundError(f"there is no compiler '{command}'; install g++, or name another in CXX")
        print_line(f"compiling C++ ({name}), once; it takes some seconds")
        for killed in folder.glob(f".{stem}-*"):
            shutil.rmtree(killed, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{stem}-") as unfinished:
            compiled = Path(unfinished, "library.so")
            _compile([program, *options, *_openmp(), "-o", str(compiled), *map(str, sorted(sources.glob("*.cpp")))])
            compiled.chmod(0o644 if beside else 0o600)
            library = folder / f"{stem}-{_checksum(compiled)}.so"
            os.replace(compiled, library)
    print_line(f"compiled -> {library}")
    return library


def _find(folder: Path, stem: str) -> Path | None:
    """Return the library in `folder` whose name begins with `stem`, if it is whole and private."""
    found = (library for library in folder.glob(f"{stem}-*.so") if library.is_file() and is_private(library))
    return next((library for library in found if library.name == f"{stem}-{_checksum(library)}.so"), None)


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
        raise CompileError(f"{command[0]} has not ended after {COMPILE_SECONDS} seconds") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        raise CompileError(f"{command[0]}: {next((line for line in lines if 'error' in line), lines[0])}")


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
