"""Files of vectors that embedder.py wrote, read a block at a time, and searched whole."""

import json
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse

from utils.console import progress_bar
from utils.records import read_json_records
from utils.splade.vectors import SparseVector, to_csr

STORED_BYTES = 6  # of a term in an index: its number, and a weight of two bytes
BLOCK = 10_000  # vectors at a time
# What reading a damaged archive raises, from its table to an array's values. An unknown compression is a RuntimeError.
DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, LookupError, TypeError, ValueError, EOFError)

Block = tuple[list[str], scipy.sparse.csr_array]  # ids, and [vectors, vocabulary] weights


class FileSearch(NamedTuple):
    """What queries find in a file of vectors.

    Attributes:
        hits: (id, score) of each query, best first; those of equal scores in the file's order.
        frequencies: in how many vectors each term is active.
        documents: how many vectors there are.
        bytes: of all vectors, as an index stores them.
        known: those of the ids that were asked for that have a vector.
    """

    hits: list[list[tuple[str, float]]]
    frequencies: SparseVector
    documents: int
    bytes: int
    known: set[str]


def search_vectors(
    path: str | Path,
    queries: Sequence[SparseVector],
    vocabulary: int,
    top_k: int,
    ids: Collection[str] = (),
    model: str | None = None,
) -> FileSearch:
    """Return what queries find in a file of vectors, by the dot product with each of them, and which of `ids` it has.

    Args:
        model: fingerprint of the queries' model; a .npz file has that of its own.

    Raises:
        ValueError: the file is broken, of another model or vocabulary, or holds words in place of indices.
        OSError: it cannot be read.
    """
    asked = to_csr(queries, vocabulary)
    best = np.zeros((len(queries), 0), np.float32)  # [queries, hits]
    places = np.zeros((len(queries), 0), np.int64)  # of the hits in the file
    names, counts, size = [], np.zeros(vocabulary, np.int64), 0
    for block_ids, block in progress_bar(
        read_vectors(path, vocabulary, model), desc="searching", unit="blocks", leave=False
    ):
        size += STORED_BYTES * len(block.data)
        counts += np.bincount(block.indices, minlength=vocabulary)
        numbers = np.broadcast_to(np.arange(len(names), len(names) + len(block_ids)), (len(queries), len(block_ids)))
        best = np.concatenate([best, (asked @ block.T).toarray()], axis=1)
        places = np.concatenate([places, numbers], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top_k]
        best, places = np.take_along_axis(best, order, 1), np.take_along_axis(places, order, 1)
        names += block_ids
    hits = [
        [(names[place], float(score)) for place, score in zip(row, scores) if score > 0]
        for row, scores in zip(places.tolist(), best)
    ]
    active = counts.nonzero()[0]
    return FileSearch(hits, SparseVector(active, counts[active]), len(names), size, set(ids).intersection(names))


def read_vectors(path: str | Path, vocabulary: int, model: str | None = None) -> Iterator[Block]:
    """Yield the vectors of a file a block at a time.

    Raises:
        ValueError, OSError: see `search_vectors`.
    """
    path = Path(path)
    count = 0
    matrix = path.suffix.lower() == ".npz"
    if matrix and model and (own := _read_model(path)) and own != model:
        raise ValueError(f"{path}: is of another model; encode the documents with this one")
    for ids, block in _read_matrix(path) if matrix else _read_lines(path):
        if len(block.indices) and (block.indices.min() < 0 or block.indices.max() >= vocabulary):
            raise ValueError(f"{path}: has terms outside of the model's {vocabulary:,}; it is of another model")
        count += len(ids)
        yield ids, scipy.sparse.csr_array((block.data, block.indices, block.indptr), shape=(len(ids), vocabulary))
    if not count:
        raise ValueError(f"{path}: holds no vectors")


def _read_lines(path: Path) -> Iterator[Block]:
    ids, vectors = [], []
    for place, value in read_json_records(path):
        try:
            vector = SparseVector(np.array(value["indices"], np.int32), np.array(value["values"], np.float32))
            if vector.indices.shape != vector.values.shape or vector.indices.ndim != 1:
                raise ValueError
            ids.append(str(value["id"]))
        except (TypeError, KeyError, ValueError, OverflowError):
            raise ValueError(
                f"{place}: expected 'id', 'indices' and as many 'values', as embedder.py writes them without --words"
            ) from None
        vectors.append(vector)
        if len(ids) == BLOCK:
            yield ids, _stack(vectors)
            ids, vectors = [], []
    if ids:
        yield ids, _stack(vectors)


def _stack(vectors: Sequence[SparseVector]) -> scipy.sparse.csr_array:
    return to_csr(vectors, 1 + max(int(vector.indices.max(initial=0)) for vector in vectors))


def _read_model(path: Path) -> str | None:
    """Return the fingerprint of the model that made a file, None where the file has none, or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_member(archive, "model").tobytes().decode()
    except DAMAGED:
        return None


def _read_matrix(path: Path) -> Iterator[Block]:
    try:
        with zipfile.ZipFile(path) as archive:
            ids, starts, shape = (_read_member(archive, name) for name in ("ids", "indptr", "shape"))
            ids = json.loads(ids.tobytes())
            with archive.open("indices.npy") as indices, archive.open("data.npy") as data:
                kinds = [_read_header(file)[0] for file in (indices, data)]
                for start in range(0, len(ids), BLOCK):
                    bounds = starts[start : start + BLOCK + 1].astype(np.int64)
                    length = int(bounds[-1] - bounds[0])
                    parts = [
                        np.frombuffer(file.read(length * kind.itemsize), kind, length)
                        for file, kind in zip((indices, data), kinds)
                    ]
                    rows = (len(bounds) - 1, int(shape[1]))
                    block = (parts[1], parts[0].astype(np.int32, copy=False), bounds - bounds[0])
                    yield ids[start : start + BLOCK], scipy.sparse.csr_array(block, shape=rows)
    except DAMAGED as error:
        raise ValueError(f"{path}: is no file of vectors that embedder.py wrote, or a damaged one: {error}") from None


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as file:
        return np.load(file, allow_pickle=False)


def _read_header(file) -> tuple[np.dtype, tuple[int, ...]]:
    """Return the type and the shape of an array in NumPy's format, whose values the file is then at."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = header(file)
    return kind, shape
