"""What a search engine's files are made of: its index definition, a document, a query."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from utils.records import Document
from utils.splade.vectors import SparseVector

COLLECTION = "documents"  # the index's name in definitions and queries
HITS = 10  # that a query asks for


class Engine(ABC):
    """A search engine that loads a document from a line or two, and answers a query of one line. Documents carry their
    title, text and metadata beside the vector, for the hits.

    Args:
        terms: the vocabulary's terms by id, as `utils.export.engines.terms.term_names` gives them.

    Attributes:
        definition_suffix: ends the name of the file with the index definition, after the stem of the documents' file;
            "" where the engine has none.
        max_id_bytes: length of a document's id in UTF-8 that the engine takes; None for any.
    """

    definition_suffix: ClassVar[str] = "_index.json"
    max_id_bytes: ClassVar[int | None] = None

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms = terms

    @abstractmethod
    def index_definition(self) -> str:
        """Return what the index is made with, as the engine reads it; "" where there is nothing of that kind."""

    @abstractmethod
    def format_document(self, document: Document, vector: SparseVector) -> str:
        """Return the line of a document, or its lines, without the last line feed.

        Raises:
            ValueError: the engine does not take such an id or such metadata.
        """

    @abstractmethod
    def format_query(self, query: Document, vector: SparseVector) -> str:
        """Return the search request of a query, on one line.

        Raises:
            ValueError: the engine does not take such an id.
        """

    def check_id(self, document: Document) -> str:
        """Return a document's id.

        Raises:
            ValueError: it is longer than the engine takes.
        """
        size = len(document.id.encode())
        if self.max_id_bytes is not None and size > self.max_id_bytes:
            raise ValueError(
                f"document '{document.id[:40]}...': its id has {size:,} bytes, and this engine takes "
                f"{self.max_id_bytes}; give it a shorter one"
            )
        return document.id

    def words(self, vector: SparseVector) -> dict[str, float]:
        """Return a vector's weights by the terms' names."""
        return {self.terms[index]: weight for index, weight in zip(vector.indices, shortest_floats(vector.values))}


def ids(vector: SparseVector) -> dict[str, float]:
    """Return a vector's weights by the terms' ids, as the texts that JSON's keys are."""
    return dict(zip(map(str, vector.indices.tolist()), shortest_floats(vector.values)))


def shown_fields(document: Document) -> dict[str, Any]:
    """Return what a hit shows of a document."""
    return {"title": document.title, "text": document.text, "metadata": document.metadata}


def shortest_floats(values: np.ndarray) -> list[float]:
    """Return float32 values as the numbers of the fewest digits that are read as the same float32."""
    return values.astype(np.float32).astype(str).astype(np.float64).tolist()


def scale_to_integers(values: np.ndarray, scale: int) -> list[int]:
    """Return weights times `scale`, rounded."""
    return np.rint(values.astype(np.float64) * scale).astype(np.int64).tolist()


def dump_document(document: Document, value: Any) -> str:
    """Return a document's line of JSON.

    Raises:
        ValueError: its metadata hold a number that JSON does not have.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError(
            f"document '{document.id}': its metadata hold NaN or an infinite number, which no engine reads"
        ) from None
