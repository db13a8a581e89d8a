"""OpenSearch: bulk files, the field rank_features, and the query neural_sparse with the weights of the query's terms.

https://docs.opensearch.org/latest/query-dsl/specialized/neural-sparse/
"""

from typing import Any

from utils.export.engines.lucene import LuceneEngine
from utils.records import ENGINE_VECTOR


class OpenSearch(LuceneEngine):
    """Searched in one phase, with all terms, unless the search names a pipeline that prunes."""

    @property
    def vector_mapping(self) -> dict[str, Any]:
        return {"type": "rank_features"}

    def query_clause(self, weights: dict[str, float]) -> dict[str, Any]:
        return {"neural_sparse": {ENGINE_VECTOR: {"query_tokens": weights}}}
