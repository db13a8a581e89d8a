"""C++ sources of this folder, compiled at their first use into the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch  # noqa: F401  loads its OpenMP runtime first, so that the library shares its threads

from utils.files import replacing

# Sums may be reordered, which lets loops vectorize; NaN and infinity keep their meaning.
FLAGS = "-std=c++17 -O3 -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -fopenmp -fPIC -shared"


@functools.cache
def load_library(name: str) -> ctypes.CDLL | None:
    """Load the library built from `name`.h and `name`*.cpp in this folder, compiling it if it is not cached.

    Returns None on systems other than Linux on x86-64, without a working GNU C++ compiler (g++, or what CXX names) or a
    writable cache folder, and on a processor for which the library's `supported()` returns 0.
    """
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
    """Compile into `library`, which appears complete or not at all: another process may be compiling it too."""
    with replacing(library) as unfinished:
        command = [compiler, *FLAGS.split(), "-o", str(unfinished), *map(str, sources)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)  # seconds
