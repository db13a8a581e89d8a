"""Milvus: rows with a SPARSE_FLOAT_VECTOR, searched by inner product, for its client or its REST API.

https://milvus.io/docs/sparse_vector.md
"""

import json

from utils.export.engines.base import COLLECTION, HITS, Engine, dump_document, ids, shown_fields
from utils.records import ENGINE_VECTOR, Document
from utils.splade.vectors import SparseVector

STRING_BYTES = 65_535  # of a VARCHAR at most
JSON_BYTES = 65_536  # of a JSON field at most


class Milvus(Engine):
    """Rows and requests whose vectors are objects of weights by the terms' ids. A document without any term, whose
    vector Milvus would refuse, gets the id behind the vocabulary's last, which no query has."""

    max_id_bytes = STRING_BYTES

    def index_definition(self) -> str:
        length = {"elementTypeParams": {"max_length": STRING_BYTES}}
        fields = [
            {"fieldName": "id", "dataType": "VarChar", "isPrimary": True, **length},
            {"fieldName": "title", "dataType": "VarChar", **length},
            {"fieldName": "text", "dataType": "VarChar", **length},
            {"fieldName": "metadata", "dataType": "JSON"},
            {"fieldName": ENGINE_VECTOR, "dataType": "SparseFloatVector"},
        ]
        index = {"fieldName": ENGINE_VECTOR, "indexName": ENGINE_VECTOR, "metricType": "IP"}
        index |= {"indexType": "SPARSE_INVERTED_INDEX", "params": {"inverted_index_algo": "DAAT_MAXSCORE"}}
        schema = {"autoId": False, "enabledDynamicField": False, "fields": fields}
        return json.dumps({"collectionName": COLLECTION, "schema": schema, "indexParams": [index]}, indent=2)

    def format_document(self, document: Document, vector: SparseVector) -> str:
        size = len(json.dumps(document.metadata, ensure_ascii=False).encode())
        if size > JSON_BYTES:
            raise ValueError(
                f"document '{document.id}': its metadata have {size:,} bytes, and Milvus takes {JSON_BYTES:,}"
            )
        row = {"id": self.check_id(document), ENGINE_VECTOR: ids(vector) or {str(len(self.terms)): 1.0}}
        row |= shown_fields(document)
        row |= {name: row[name].encode()[:STRING_BYTES].decode(errors="ignore") for name in ("title", "text")}
        return dump_document(document, row)

    def format_query(self, query: Document, vector: SparseVector) -> str:
        body = {"collectionName": COLLECTION, "data": [ids(vector)], "annsField": ENGINE_VECTOR, "limit": HITS}
        body["searchParams"] = {"metricType": "IP", "params": {"drop_ratio_search": 0.0}}
        return json.dumps(body | {"outputFields": ["title", "text", "metadata"]})
