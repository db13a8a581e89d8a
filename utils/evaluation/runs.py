"""Runs: what a system finds for each query of a test collection, and how good that is query by query."""

from typing import NamedTuple

import numpy as np

from utils.evaluation.collection import Collection
from utils.evaluation.metrics import score_run
from utils.search.document_index import DocumentIndex
from utils.search.fusion import fuse
from utils.search.lexical import BM25Index
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import mean_terms

RUN_DEPTH = 100  # documents retrieved for a query

Run = dict[str, dict[str, float]]  # scores by query and document


class ModelRun(NamedTuple):
    """A SPLADE model's run.

    Attributes:
        hits: scores by query and document.
        values: [queries] values of a metric.
        doc_terms, query_terms: mean active terms of what is indexed and of a query.
    """

    hits: Run
    values: np.ndarray
    doc_terms: float
    query_terms: float


def bm25_run(data: Collection, index: BM25Index) -> Run:
    """Return BM25's scores by query and document; the index is that of the collection's documents."""
    hits = index.search(list(data.queries.values()), RUN_DEPTH)
    return {query: {data.documents[i].id: score for i, score in found} for query, found in zip(data.queries, hits)}


def run_model(data: Collection, model: Encoder, metric: str) -> ModelRun:
    """Return a SPLADE model's run, with the values of a metric as ir-measures spells it."""
    index = DocumentIndex(model)
    index.add(data.documents, show_progress=True)
    ids = [document.id for document in data.documents]
    vectors = {query: model.encode_query(text) for query, text in data.queries.items()}
    hits = {
        query: {ids[hit.document]: hit.score for hit in index.search(vector, top_k=RUN_DEPTH)}
        for query, vector in vectors.items()
    }
    return ModelRun(hits, values_by_query(data, hits, metric), index.mean_terms, mean_terms(list(vectors.values())))


def fuse_runs(first: Run, second: Run) -> Run:
    """Return the fused scores of two runs, query by query (`fuse`, by scores)."""
    runs = {"first": first, "second": second}
    queries = first.keys() | second.keys()
    return {query: fuse({name: run.get(query, {}) for name, run in runs.items()}) for query in queries}


def values_by_query(data: Collection, run: Run, metric: str) -> np.ndarray:
    """Return [queries] values of a metric, as ir-measures spells it, in the queries' order; 0 for one without a hit."""
    return score_run(data.qrels, run.items(), [metric]).values[metric]
