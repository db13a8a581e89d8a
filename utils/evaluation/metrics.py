"""How well a model retrieves: metrics by ir-measures, active terms and latency."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ir_measures
import numpy as np

from utils.console import progress_bar
from utils.evaluation.collection import Collection
from utils.search.index import SearchIndex
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

DEFAULT_METRICS = ("nDCG@10", "RR@10", "P@5", "R@100")
SEARCH_DEPTH = 100  # documents retrieved for a query: as deep as R@100, the deepest of the default metrics, looks


def check_metrics(metrics: Sequence[str]) -> None:
    """Check the names of metrics.

    Raises:
        ValueError: ir-measures does not know a name, or it looks deeper than SEARCH_DEPTH.
    """
    for name in metrics:
        try:
            measure = ir_measures.parse_measure(name)
        except (ValueError, NameError) as error:
            raise ValueError(f"unknown metric '{name}': use names such as {' '.join(DEFAULT_METRICS)}") from error
        if measure.params.get("cutoff", 0) > SEARCH_DEPTH:
            raise ValueError(f"metric '{name}' looks deeper than the {SEARCH_DEPTH} documents retrieved for a query")


def evaluate_run(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, float]:
    """Return the means over the judged queries; a query without a result counts as 0.

    Args:
        qrels: qrels[query id][document id] is the grade.
        run: run[query id][document id] is the score.
        metrics: names as ir-measures spells them.
    """
    measures = [ir_measures.parse_measure(name) for name in metrics]
    complete = {query: run.get(query, {}) for query in qrels}
    totals = ir_measures.calc_aggregate(measures, qrels, complete)
    return {name: float(totals[measure]) for name, measure in zip(metrics, measures)}


def evaluate_model(
    name: str,
    model: SpladeEncoder,
    data: Collection,
    metrics: Sequence[str] = DEFAULT_METRICS,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Return a row of the table for a SPLADE model: `model`, the metrics, `doc_terms`, `query_terms` and
    `query_latency_ms`, of encoding and search together."""
    vectors = model.encode(
        [document.full_text for document in data.documents], batch_size=batch_size, show_progress=True
    )
    index = SearchIndex(vectors)
    lengths = []

    def search(query: str) -> list[tuple[int, float]]:
        vector = model.encode_query(query)
        lengths.append(len(vector.indices))
        return index.search(vector, SEARCH_DEPTH)

    row = _measure(name, data, metrics, search)
    return {**row, "doc_terms": _mean_terms(vectors), "query_terms": float(np.mean(lengths))}


def evaluate_bm25(data: Collection, metrics: Sequence[str] = DEFAULT_METRICS) -> dict[str, Any]:
    """Return the same row for BM25; its terms are the distinct words that it indexes."""
    texts = [document.full_text for document in data.documents]
    index = BM25Index(texts)
    row = _measure("BM25", data, metrics, lambda query: index.search([query], SEARCH_DEPTH)[0])
    return {**row, "doc_terms": index.mean_terms(texts), "query_terms": index.mean_terms(list(data.queries.values()))}


def _measure(
    name: str, data: Collection, metrics: Sequence[str], search: Callable[[str], list[tuple[int, float]]]
) -> dict[str, Any]:
    run: dict[str, dict[str, float]] = {}
    milliseconds = []
    search(next(iter(data.queries.values())))  # first-call costs are not a query's latency
    for query, text in progress_bar(data.queries.items(), desc=name, unit="queries", leave=False):
        started = time.perf_counter()
        hits = search(text)
        milliseconds.append((time.perf_counter() - started) * 1000)
        run[query] = {data.documents[position].id: score for position, score in hits}
    return {
        "model": name,
        **evaluate_run(data.qrels, run, metrics),
        "query_latency_ms": latency_percentiles(milliseconds),
    }


def _mean_terms(vectors: list[SparseVector]) -> float:
    return float(np.mean([len(vector.indices) for vector in vectors]))


def latency_percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the median, p50, and the slow ends, p95 and p99, in ms."""
    return {f"p{p}": round(float(np.percentile(milliseconds, p)), 3) for p in (50, 95, 99)}
