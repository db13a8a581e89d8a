"""How well a model retrieves: metrics by ir-measures, active terms and latency."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ir_measures
import numpy as np

from utils.console import progress_bar
from utils.evaluation.collection import Collection
from utils.search.dense import DenseEncoder
from utils.search.document_index import DocumentIndex
from utils.search.lexical import BM25Index
from utils.search.searcher import DocumentSearch, EncodedQuery
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

DEFAULT_METRICS = ("nDCG@10", "RR@10", "P@5", "R@100")
TIMED_DEPTH = 100  # documents retrieved for a query while its latency is measured
# ir-measures' choice without gdeval, a Perl script that reads no ids other than numbers.
PROVIDERS = ir_measures.providers.FallbackProvider(
    [provider for provider in ir_measures.DefaultPipeline.providers if provider.NAME != "gdeval"]
)
HITS_HELD = 1_000_000  # hits held before they are evaluated; bounds the memory that metrics over all documents take


def check_metrics(metrics: Sequence[str]) -> None:
    """Check the names of metrics.

    Raises:
        ValueError: ir-measures does not know a name, or cannot compute it here; or its cutoff is below 1.
    """
    use = f"use names such as {' '.join(DEFAULT_METRICS)}"
    for name in metrics:
        try:
            measure = ir_measures.parse_measure(name)
        except Exception as error:  # its grammar's, and those of the names that it looks up
            raise ValueError(f"unknown metric '{name}': {use}") from error
        if measure.params.get("cutoff", 1) < 1:  # a library in C would abort the process
            raise ValueError(f"metric '{name}': its cutoff must be at least 1")
        try:
            PROVIDERS.calc_aggregate([measure], {"query": {"document": 1}}, {"query": {"document": 1.0}})
        except Exception as error:  # of whichever library computes the metric
            raise ValueError(f"metric '{name}' cannot be computed here: {use}") from error


def search_depth(metrics: Sequence[str], documents: int) -> int:
    """Return how many of a collection's `documents` the metrics look at: all of them where one has no cutoff."""
    depths = [0]
    for measure in map(ir_measures.parse_measure, metrics):
        whole_run = "cutoff" not in measure.params or measure.params.get("judged_only")
        depths.append(documents if whole_run else measure.params["cutoff"])
    return min(documents, max(depths))


def evaluate_run(
    qrels: dict[str, dict[str, int]],
    run: Iterable[tuple[str, dict[str, float]]],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, float]:
    """Return the means over the judged queries; a query without a result counts as 0.

    Args:
        qrels: qrels[query id][document id] is the grade.
        run: (query id, score by document id) of each query; it is read a part at a time.
        metrics: names as ir-measures spells them.
    """
    measures = [ir_measures.parse_measure(name) for name in metrics]
    totals = {measure: measure.aggregator() for measure in measures}

    def evaluate_part(part: dict[str, dict[str, float]]) -> None:
        for value in PROVIDERS.iter_calc(measures, {query: qrels[query] for query in part}, part):
            totals[value.measure].add(value.value)

    part: dict[str, dict[str, float]] = {}
    missing, held = set(qrels), 0
    for query, hits in run:
        part[query] = hits
        missing.discard(query)
        held += len(hits)
        if held >= HITS_HELD:
            evaluate_part(part)
            part, held = {}, 0
    evaluate_part({**part, **{query: {} for query in missing}})
    return {name: float(totals[measure].result()) for name, measure in zip(metrics, measures)}


def index_collection(
    model: SpladeEncoder,
    data: Collection,
    batch_size: int | None = None,
    language: str | None = None,
    dense: DenseEncoder | None = None,
) -> DocumentIndex:
    """Return a temporary index of the collection's documents; `language` is that of the texts, for BM25."""
    index = DocumentIndex(model, language=language, dense=dense)
    index.add(data.documents, batch_size, show_progress=True)
    return index


def evaluate_search(
    name: str, search: DocumentSearch, data: Collection, metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, Any]:
    """Return a row of the table for a search of the collection's index: `model` (the name), the metrics, `doc_terms`
    (mean active terms of what is indexed: a document, or each passage of a long one), `query_terms` (0 where the model
    is not searched by), `query_latency_ms`, of encoding and search together, and `long_documents`, how many are
    searched by their passages."""

    def rank(query: EncodedQuery, depth: int) -> list[tuple[int, float]]:
        return [(hit.document, hit.score) for hit in search.rank(query, depth)]

    row, queries = _measure(name, data, metrics, search.encode, rank)
    terms = {"doc_terms": search.index.mean_terms, "query_terms": mean_terms([query.vector for query in queries])}
    return {**row, **terms, "long_documents": search.index.long_documents}


def evaluate_model(
    name: str, model: SpladeEncoder, data: Collection, metrics: Sequence[str] = DEFAULT_METRICS
) -> dict[str, Any]:
    """Return the row of a SPLADE model alone."""
    with index_collection(model, data) as index:
        return evaluate_search(name, DocumentSearch(index, model, "splade"), data, metrics)


def evaluate_bm25(
    data: Collection, metrics: Sequence[str] = DEFAULT_METRICS, language: str | None = None
) -> dict[str, Any]:
    """Return the same row for BM25, with its `description`; its terms are the distinct ones of a text. `language` is
    that of the texts, see BM25Index."""
    texts = [document.full_text for document in data.documents]
    index = BM25Index(texts, language)
    row, queries = _measure("BM25", data, metrics, str, lambda query, depth: index.search([query], depth)[0])
    terms = {"doc_terms": index.mean_terms(texts), "query_terms": index.mean_terms(queries)}
    return {**row, **terms, "description": index.description}


def _measure(
    name: str,
    data: Collection,
    metrics: Sequence[str],
    encode: Callable[[str], Any],
    search: Callable[[Any, int], list[tuple[int, float]]],
) -> tuple[dict[str, Any], list[Any]]:
    """Return the metrics and the latency of a search by `encode` and `search`, and the encoded queries."""
    depth = search_depth(metrics, len(data.documents))
    encoded, milliseconds = [], []
    search(encode(next(iter(data.queries.values()))), TIMED_DEPTH)  # first-call costs are not a query's latency

    def run() -> Iterator[tuple[str, dict[str, float]]]:
        for query, text in progress_bar(data.queries.items(), desc=name, unit="queries", leave=False):
            started = time.perf_counter()
            encoded.append(encode(text))
            hits = search(encoded[-1], TIMED_DEPTH)
            milliseconds.append((time.perf_counter() - started) * 1000)
            if depth > TIMED_DEPTH:
                hits = search(encoded[-1], depth)
            yield query, {data.documents[position].id: score for position, score in hits}

    figures = evaluate_run(data.qrels, run(), metrics)
    return {"model": name, **figures, "query_latency_ms": latency_percentiles(milliseconds)}, encoded


def mean_terms(vectors: Sequence[SparseVector]) -> float:
    """Return the mean number of active terms."""
    return float(np.mean([len(vector.indices) for vector in vectors]))


def latency_percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the median, p50, and the slow ends, p95 and p99, in ms."""
    return {f"p{p}": round(float(np.percentile(milliseconds, p)), 3) for p in (50, 95, 99)}
