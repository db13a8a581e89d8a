"""Elasticsearch: bulk files, and either of the two fields that hold weights of terms.

https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/sparse-vector
https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/rank-features
"""

from typing import Any

from utils.export.engines.lucene import LuceneEngine
from utils.records import ENGINE_VECTOR


class Elasticsearch(LuceneEngine):
    """The field sparse_vector, with the pruning of query terms, which new indices do by default, switched off in the
    index and in the query."""

    @property
    def vector_mapping(self) -> dict[str, Any]:
        return {"type": "sparse_vector", "index_options": {"prune": False}}

    def query_clause(self, weights: dict[str, float]) -> dict[str, Any]:
        return {"sparse_vector": {"field": ENGINE_VECTOR, "query_vector": weights, "prune": False}}


class ElasticsearchRankFeatures(LuceneEngine):
    """The field rank_features, with a clause for each query term: for versions without sparse_vector, which prune
    nothing."""

    @property
    def vector_mapping(self) -> dict[str, Any]:
        return {"type": "rank_features"}

    def query_clause(self, weights: dict[str, float]) -> dict[str, Any]:
        clauses = [
            {"rank_feature": {"field": f"{ENGINE_VECTOR}.{term}", "linear": {}, "boost": weight}}
            for term, weight in weights.items()
        ]
        return {"bool": {"should": clauses}}
