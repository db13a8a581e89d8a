"""Vectors of dense models in the user's cache folder: a text is encoded once, whatever runs ask for its vector."""

import hashlib
import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np

from utils.console import print_line, progress_bar
from utils.files import cache_folder, is_private, replacing

MAX_ROWS = 100_000  # vectors in a file, of one model: 150 MB at 384 dimensions
BLOCK_TEXTS = 256  # texts encoded between two steps of the progress bar
KEPT_SECONDS = 60  # between two writes to the file, the most that an interrupt loses


def encode_cached(
    name: str, identity: str, texts: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """Return the [texts, dimensions] vectors of texts: those that an earlier run has kept, and the others encoded, each
    distinct text once, and kept in turn.

    A broken file counts as none, and is replaced. Of two processes that write at once, the last one's vectors are kept.
    Where none can be kept, a line says why.

    Args:
        name: of the model, for messages.
        identity: everything but the text that a vector depends on: the model's version, how it computes.
        encode: returns the [texts, dimensions] float32 vectors of texts.
    """
    file_name = f"vectors-{_hash(identity).hex()}.npz"
    keys = [_hash(text) for text in texts]
    distinct = dict(zip(keys, texts))
    cached_keys, vectors = _read(file_name)
    row_of = {key: row for row, key in enumerate(cached_keys)}
    missing = [key for key in distinct if key not in row_of]
    if len(missing) < len(distinct):
        count = len(distinct) - len(missing)
        print_line(f"{name}: {count:,} of {len(distinct):,} texts have their vectors in the cache")
    if missing:
        missing.sort(key=lambda key: -len(distinct[key]))  # texts of a block of one length need little padding
        parts = [vectors] if len(vectors) else []
        written, failure = time.monotonic(), None
        with progress_bar(total=len(missing), desc="encoding", unit="texts") as bar:
            for start in range(0, len(missing), BLOCK_TEXTS):
                block = missing[start : start + BLOCK_TEXTS]
                parts.append(encode([distinct[key] for key in block]))
                row_of |= {key: row for row, key in enumerate(block, len(row_of))}
                bar.update(len(block))
                if block[-1] != missing[-1] and time.monotonic() - written < KEPT_SECONDS:
                    continue
                vectors = np.concatenate(parts)
                parts = [vectors]
                wanted = row_of if len(row_of) <= MAX_ROWS else filter(row_of.__contains__, distinct)
                kept = list(itertools.islice(wanted, MAX_ROWS))
                try:
                    _write(file_name, kept, vectors[[row_of[key] for key in kept]])
                except OSError as error:
                    failure = error
                written = time.monotonic()
        if failure:
            print_line(f"{name}: its vectors are not kept for later runs: {failure}")
    return vectors[[row_of[key] for key in keys]]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _read(file_name: str) -> tuple[list[bytes], np.ndarray]:
    """Return the keys and the [keys, dimensions] vectors of a file; none if it is missing or broken."""
    try:
        path = cache_folder() / file_name
        if is_private(path):
            with np.load(path, allow_pickle=False) as arrays:
                keys, vectors = arrays["keys"].tolist(), arrays["vectors"]
            if vectors.ndim == 2 and vectors.dtype == np.float32 and len(set(keys)) == len(vectors):
                return keys, vectors
    except Exception:  # there are many ways in which a damaged archive cannot be read
        pass
    return [], np.empty((0, 0), np.float32)


def _write(file_name: str, keys: Sequence[bytes], vectors: np.ndarray) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(cache_folder() / file_name) as unfinished, unfinished.open("wb") as file:
        np.savez(file, keys=np.array(keys, "V16"), vectors=vectors)
