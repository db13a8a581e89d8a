"""Qdrant: points with a sparse vector, for its REST API.

https://qdrant.tech/documentation/concepts/vectors/#sparse-vectors
"""

import json
import uuid
from typing import Any

from utils.export.engines.base import HITS, Engine, dump_document, shortest_floats, shown_fields
from utils.records import ENGINE_VECTOR, Document
from utils.splade.vectors import SparseVector


class Qdrant(Engine):
    """Points whose ids, which have to be UUIDs or integers, are made of the documents' ids, which the payload has."""

    def index_definition(self) -> str:
        vector = {"modifier": "none", "index": {"datatype": "float32", "on_disk": False}}
        return json.dumps({"vectors": {}, "sparse_vectors": {ENGINE_VECTOR: vector}}, indent=2)

    def format_document(self, document: Document, vector: SparseVector) -> str:
        point = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, document.id)),
            "vector": {ENGINE_VECTOR: _lists(vector)},
            "payload": {"id": document.id, **shown_fields(document)},
        }
        return dump_document(document, point)

    def format_query(self, query: Document, vector: SparseVector) -> str:
        return json.dumps({"query": _lists(vector), "using": ENGINE_VECTOR, "limit": HITS, "with_payload": True})


def _lists(vector: SparseVector) -> dict[str, list[Any]]:
    return {"indices": vector.indices.tolist(), "values": shortest_floats(vector.values)}
