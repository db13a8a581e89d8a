"""Anserini: a JsonVectorCollection of integer weights, and topics as tab-separated values.

https://github.com/castorini/pyserini/blob/master/docs/experiments-spladev2.md
"""

import re
from urllib.parse import quote

from utils.export.engines.base import Engine, dump_document, scale_to_integers
from utils.records import Document
from utils.splade.vectors import SparseVector

SCALE = 100  # of the weights, which are integers, as of all of SPLADE's collections there


class Anserini(Engine):
    """Weights times SCALE, rounded: a term's frequency in a document, and how often a query repeats it. A term that
    rounds to 0 is left out. Spaces in ids, which separate the columns of what Anserini writes, are written as in URLs.
    A query without any term, at which Anserini would stop, gets the name behind the vocabulary's last, which no
    document has."""

    definition_suffix = ""

    def index_definition(self) -> str:
        return ""

    def format_document(self, document: Document, vector: SparseVector) -> str:
        line = {"id": _without_spaces(document.id), "vector": self._integers(vector), "title": document.title}
        return dump_document(document, line | {"contents": document.text, "metadata": document.metadata})

    def format_query(self, query: Document, vector: SparseVector) -> str:
        words = [" ".join([term] * count) for term, count in self._integers(vector).items()]
        return f"{_without_spaces(query.id)}\t{' '.join(words or [f'#{len(self.terms)}'])}"

    def _integers(self, vector: SparseVector) -> dict[str, int]:
        return {
            self.terms[index]: weight
            for index, weight in zip(vector.indices, scale_to_integers(vector.values, SCALE))
            if weight
        }


def _without_spaces(name: str) -> str:
    return re.sub(r"\s", lambda space: quote(space[0]), name)
