"""Runs: what a system finds for each query of a test collection, and how good that is query by query."""

import ir_measures
import numpy as np

from utils.evaluation.collection import Collection
from utils.evaluation.metrics import PROVIDERS
from utils.search.lexical import BM25Index
from utils.search.passages import DocumentIndex
from utils.splade.encoder import SpladeEncoder

RUN_DEPTH = 100  # documents retrieved for a query

Run = dict[str, dict[str, float]]


def bm25_run(data: Collection, index: BM25Index) -> Run:
    """Return BM25's scores by query and document; the index is that of the collection's documents."""
    hits = index.search(list(data.queries.values()), RUN_DEPTH)
    return {query: {data.documents[i].id: score for i, score in found} for query, found in zip(data.queries, hits)}


def splade_run(data: Collection, model: SpladeEncoder) -> Run:
    """Return a SPLADE model's scores by query and document."""
    titles = [document.title for document in data.documents]
    texts = [document.full_text for document in data.documents]
    index = DocumentIndex(model, texts, titles, show_progress=True)
    return {
        query: {data.documents[hit.document].id: hit.score for hit in index.search(model.encode_query(text), RUN_DEPTH)}
        for query, text in data.queries.items()
    }


def values_by_query(data: Collection, run: Run, metric: str) -> np.ndarray:
    """Return [queries] values of a metric, as ir-measures spells it, in the queries' order; 0 for one without a hit."""
    measure = ir_measures.parse_measure(metric)
    found = {part.query_id: part.value for part in PROVIDERS.iter_calc([measure], data.qrels, run)}
    return np.array([found.get(query, 0.0) for query in data.qrels])
