"""Files of vectors: our JSON Lines and matrices, and what search engines load."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from utils.console import print_line
from utils.export.engines.base import Engine
from utils.export.engines.registry import ENGINES
from utils.export.engines.terms import term_names
from utils.files import is_pipe, replacing, write_text
from utils.records import Document
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector, to_csr

Encoded = Iterable[tuple[Document, SparseVector]]
LineFormat = Callable[[Document, SparseVector], str]


def is_matrix(path: str) -> bool:
    """Return whether a file of vectors is to be a matrix, by its name."""
    return Path(path).suffix.lower() == ".npz"


def open_engine(name: str, encoder: Encoder) -> Engine:
    """Return a search engine of `ENGINES`, which knows the terms of a model."""
    return ENGINES[name](term_names(encoder.tokenizer, encoder.vocabulary_size))


def line_format(encoder: Encoder, words: bool, engine: Engine | None, queries: bool) -> LineFormat:
    """Return the function that formats a document, or a query, with its vector.

    Args:
        words: our own lines have words in place of vocabulary ids.
        engine: whose lines they are; None for our own.
    """
    if engine:
        return engine.format_query if queries else engine.format_document

    def format_line(document: Document, vector: SparseVector) -> str:
        line: dict[str, Any] = {"id": document.id}
        if document.metadata:
            line["metadata"] = document.metadata
        indices, values = (part.tolist() for part in vector)
        if words:
            tokens = encoder.tokenizer.convert_ids_to_tokens(indices)  # no two of them are the same
            return json.dumps(line | {"words": dict(zip(tokens, values))})
        return json.dumps(line | {"indices": indices, "values": values})

    return format_line


def write_lines(path: str, encoded: Encoded, format_line: LineFormat) -> tuple[int, int]:
    """Write vectors as lines to a pipe; return how many there are, and their terms."""
    count = terms = 0
    with open(path, "w", encoding="utf-8") as file:
        for document, vector in encoded:
            file.write(format_line(document, vector) + "\n")
            count, terms = count + 1, terms + len(vector.indices)
    return count, terms


def write_matrix(path: str, encoder: Encoder, encoded: Encoded) -> tuple[int, int]:
    """Write vectors as the rows of a CSR matrix, as scipy.sparse.load_npz reads it, with the arrays `ids`, a JSON list
    in bytes, since an array of texts has room for the longest in each place, and `model`, the model's fingerprint;
    return how many there are, and their terms."""
    ids, vectors = [], []
    for document, vector in encoded:
        ids.append(document.id)
        vectors.append(vector)
    matrix = to_csr(vectors, encoder.vocabulary_size)
    parts = {name: getattr(matrix, name) for name in ("data", "indices", "indptr", "shape")}
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        notes = {"ids": json.dumps(ids), "model": encoder.fingerprint}
        notes = {name: np.frombuffer(text.encode(), np.uint8) for name, text in notes.items()}
        np.savez_compressed(file, format="csr", **parts, **notes)
    return len(ids), matrix.nnz


def definition_file(path: str, engine: type[Engine]) -> Path | None:
    """Return where the index definition of an engine stands beside the file of its documents: `vectors_index.json`
    beside `vectors.jsonl`; None where there is none, or no place, as beside a pipe."""
    if not engine.definition_suffix or is_pipe(path):
        return None
    return Path(path).with_name(Path(path).stem + engine.definition_suffix)


def write_definition(path: str, engine: Engine) -> None:
    """Write an engine's index definition beside the file of its documents, if it has one, and print it."""
    if file := definition_file(path, type(engine)):
        write_text(file, engine.index_definition() + "\n")
        print_line(f"{engine.index_definition()}\nthe index's definition -> {file}")
