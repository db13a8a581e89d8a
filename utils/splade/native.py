"""C++ beside a module, compiled at its first use and kept in the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch  # noqa: F401  its OpenMP must be in the process first, so that ours shares its threads

from utils.files import replacing

# Sums may be reordered, so that loops vectorize; NaN and infinity keep their meaning.
FLAGS = "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -fopenmp -fPIC -shared"


@functools.cache
def load_library(name: str) -> ctypes.CDLL | None:
    """The library made of utils/`name`.h and `name`*.cpp, or None where it cannot be had: no GNU C++ compiler (CXX
    names another than g++), no cache folder to write to, or a processor that its `supported()` says no to."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    sources = sorted(Path(__file__).parent.glob(f"{name}*.cpp"))
    code = b"".join(file.read_bytes() for file in [Path(__file__).with_name(f"{name}.h"), *sources])
    key = hashlib.sha256(code + f"{compiler} {FLAGS}".encode()).hexdigest()[:16]
    library = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "splade-toolkit", f"{name}-{key}.so")
    try:
        if not library.exists():
            _compile(compiler, sources, library)
        loaded = ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError):
        return None
    return loaded if loaded.supported() else None


def _compile(compiler: str, sources: list[Path], library: Path) -> None:
    """Write `library` whole or not at all: another process may be doing the same."""
    with replacing(library) as unfinished:
        command = [compiler, *FLAGS.split(), "-o", str(unfinished), *map(str, sources)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
