"""What OpenSearch and Elasticsearch share: bulk files, and Lucene's field for weights of terms."""

import json
from abc import abstractmethod
from typing import Any

from utils.export.engines.base import HITS, Engine, dump_document, shown_fields
from utils.records import ENGINE_VECTOR, Document
from utils.splade.vectors import SparseVector


class LuceneEngine(Engine):
    """An engine that keeps a document's weights in Lucene's FeatureField, whose queries are sums of products.

    A weight is cut, in the index, to the first 9 of its 24 significant bits, that is by less than 1/256 of it
    (https://lucene.apache.org/core/9_12_0/core/org/apache/lucene/document/FeatureField.html); a query's is not.
    """

    max_id_bytes = 512

    @property
    @abstractmethod
    def vector_mapping(self) -> dict[str, Any]:
        """The type of the vector's field."""

    @abstractmethod
    def query_clause(self, weights: dict[str, float]) -> dict[str, Any]:
        """Return the query that adds up the products of weights, of which there is one at least."""

    def index_definition(self) -> str:
        properties = {
            "title": {"type": "text"},
            "text": {"type": "text"},
            "metadata": {"type": "object", "enabled": False},  # shown, whatever it holds; not searched
            ENGINE_VECTOR: self.vector_mapping,
        }
        return json.dumps({"mappings": {"dynamic": False, "properties": properties}}, indent=2)

    def format_document(self, document: Document, vector: SparseVector) -> str:
        action = json.dumps({"index": {"_id": self.check_id(document)}})
        return f"{action}\n{dump_document(document, {ENGINE_VECTOR: self.words(vector), **shown_fields(document)})}"

    def format_query(self, query: Document, vector: SparseVector) -> str:
        weights = self.words(vector)
        clause = self.query_clause(weights) if weights else {"match_none": {}}
        return json.dumps({"size": HITS, "_source": {"excludes": [ENGINE_VECTOR]}, "query": clause})
