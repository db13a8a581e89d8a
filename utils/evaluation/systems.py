"""Systems: what a search, BM25, or another system's run file finds for the queries of a collection, how good it is, and
what it costs."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.console import print_line, progress_bar
from utils.evaluation.collection import Collection
from utils.evaluation.metrics import DEFAULT_METRICS, score_run, search_depth
from utils.evaluation.runs import RUN_DEPTH, Run
from utils.search.dense import DenseEncoder
from utils.search.document_index import DocumentIndex
from utils.search.lexical import BM25Index
from utils.search.searcher import DocumentSearch, EncodedQuery
from utils.search.vector_files import search_vectors
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector, mean_terms

PERCENTILES = (50, 95, 99)
MAX_RUN = 1000  # documents of a query that are kept


class Costs(NamedTuple):
    """What a system costs; None where it is not known.

    Attributes:
        doc_terms: mean active terms of what is indexed: a document, or each passage of a long one.
        query_terms: mean active terms of a query; both None where no sparse vectors are searched.
        flops: mean products of a query and what is indexed (FLOPS of Formal et al., arXiv 2109.10086): over the terms,
            the sum of the share of queries times the share of passages that have it.
        index_bytes: of the vectors that are searched, as they are kept.
        documents_per_second: encoded and indexed.
        encode_ms, search_ms: [queries] milliseconds, one query at a time, after a first one that is not counted.
    """

    doc_terms: float | None = None
    query_terms: float | None = None
    flops: float | None = None
    index_bytes: int | None = None
    documents_per_second: float | None = None
    encode_ms: np.ndarray | None = None
    search_ms: np.ndarray | None = None


class Evaluation(NamedTuple):
    """What a system found on a collection.

    Attributes:
        system: its name.
        means: the figure over all queries, by metric.
        values: [queries] values by metric, in the order of the collection's judgments.
        run: the best documents of each query, as many as the metrics look at, RUN_DEPTH at least and MAX_RUN at most.
        costs: what it costs.
        long_documents: how many are searched by their passages.
        description: what there is to say of the system beyond its name.
    """

    system: str
    means: dict[str, float]
    values: dict[str, np.ndarray]
    run: Run
    costs: Costs = Costs()
    long_documents: int = 0
    description: str = ""

    def row(self) -> dict[str, Any]:
        """Return the figures for a file, without what is not known: latencies as their percentiles, in ms."""
        row: dict[str, Any] = {"model": self.system, **self.means}
        costs = self.costs._asdict()
        times = {name: costs.pop(f"{name}_ms") for name in ("encode", "search")}
        if times["search"] is not None:
            times["query"] = times["encode"] + times["search"]
            row["queries_per_second"] = 1000 / float(times["query"].mean())
        row |= {f"{name}_latency_ms": percentiles(ms) for name, ms in times.items() if ms is not None}
        row |= {name: cost for name, cost in costs.items() if cost is not None}
        if self.long_documents:
            row["long_documents"] = self.long_documents
        return row | ({"description": self.description} if self.description else {})


def index_collection(
    model: Encoder,
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
) -> Evaluation:
    """Return what a search of the collection's index finds."""

    def rank(query: EncodedQuery, depth: int) -> list[tuple[int, float]]:
        return [(hit.document, hit.score) for hit in search.rank(query, depth)]

    found, queries = _measure(name, data, metrics, search.encode, rank)
    index, vectors = search.index, [query.vector for query in queries]
    costs = found.costs._replace(
        doc_terms=index.mean_terms if "splade" in search.legs else None,
        query_terms=mean_terms(vectors) if "splade" in search.legs else None,
        flops=flops(vectors, index.term_frequencies(), index.counts()[1]) if search.legs == ["splade"] else None,
        index_bytes=index.vector_bytes(search.legs),
    )
    return found._replace(costs=costs, long_documents=index.long_documents)


def evaluate_model(name: str, model: Encoder, data: Collection, metrics: Sequence[str] = DEFAULT_METRICS) -> Evaluation:
    """Return what a SPLADE model alone finds."""
    with index_collection(model, data) as index:
        return evaluate_search(name, DocumentSearch(index, model, "splade"), data, metrics)


def evaluate_bm25(
    data: Collection, metrics: Sequence[str] = DEFAULT_METRICS, language: str | None = None
) -> Evaluation:
    """Return what BM25 finds; its terms are the distinct ones of a text. `language` is that of the texts, see
    BM25Index."""
    started = time.perf_counter()
    index = BM25Index([document.full_text for document in data.documents], language)
    rate = len(data.documents) / (time.perf_counter() - started)
    found, _ = _measure("BM25", data, metrics, str, lambda query, depth: index.search([query], depth)[0])
    documents, queries = index.document_matrix(), index.query_matrix(list(data.queries.values()))
    queries.sum_duplicates()
    frequencies = np.bincount(documents.indices, minlength=documents.shape[1])
    costs = found.costs._replace(
        doc_terms=documents.nnz / documents.shape[0],
        query_terms=queries.nnz / queries.shape[0],
        flops=float(frequencies[queries.indices].sum()) / documents.shape[0] / queries.shape[0],
        index_bytes=documents.data.nbytes + documents.indices.nbytes,
        documents_per_second=rate,
    )
    return found._replace(costs=costs, description=index.description)


def evaluate_vectors(
    name: str, model: Encoder, path: str | Path, data: Collection, metrics: Sequence[str] = DEFAULT_METRICS
) -> Evaluation:
    """Return what a model's queries find in a file of documents' vectors, read a block at a time. The documents of the
    collection are not looked at; encoding is timed, searching is not.

    Raises:
        ValueError: the metrics look at all documents, or the file is broken or of another model.
        OSError: it cannot be read.
    """
    depth = search_depth(metrics, sys.maxsize)
    if depth == sys.maxsize:
        names = ", ".join(name for name in metrics if search_depth([name], sys.maxsize) == sys.maxsize)
        raise ValueError(f"`metrics` {names}: give each a cutoff, such as AP@1000, where `vectors` are searched")
    vectors, encode_ms = [], []
    model.encode_query(next(iter(data.queries.values())))
    for text in progress_bar(data.queries.values(), desc=name, unit="queries", leave=False):
        started = time.perf_counter()
        vectors.append(model.encode_query(text))
        encode_ms.append((time.perf_counter() - started) * 1000)
    judged = {document for grades in data.qrels.values() for document in grades}
    found = search_vectors(path, vectors, model.vocabulary_size, max(depth, RUN_DEPTH), judged, model.fingerprint)
    if not found.known:
        raise ValueError(f"{path}: has none of the {len(judged):,} judged documents; are they of other test data?")
    if missing := len(judged) - len(found.known):
        print_line(f"{path}: {missing:,} of {len(judged):,} judged documents have no vector there")
    run = {query: dict(reversed(hits)) for query, hits in zip(data.queries, found.hits)}  # of an id, the best
    costs = Costs(
        doc_terms=float(found.frequencies.values.sum()) / found.documents,
        query_terms=mean_terms(vectors),
        flops=flops(vectors, found.frequencies, found.documents),
        index_bytes=found.bytes,
        encode_ms=np.array(encode_ms),
    )
    evaluation = evaluate_run(name, run, data, metrics)
    return evaluation._replace(costs=costs, description=f"{name}: {found.documents:,} documents' vectors of {path}")


def evaluate_run(name: str, run: Run, data: Collection, metrics: Sequence[str] = DEFAULT_METRICS) -> Evaluation:
    """Return what is in another system's run."""
    own = data.own_documents()
    kept = {query: _rank_hits(run.get(query, {}), own.get(query)) for query in data.qrels}
    means, values = score_run(data.qrels, kept.items(), metrics)
    count = _run_depth(search_depth(metrics, max(map(len, kept.values()))))
    return Evaluation(name, means, values, {query: _first(hits, count) for query, hits in kept.items()})


def _rank_hits(hits: dict[str, float], left_out: str | None = None) -> dict[str, float]:
    """Return the scores by document, best first, without one document."""
    return {name: hits[name] for name in sorted(hits, key=hits.get, reverse=True) if name != left_out}


def _run_depth(depth: int) -> int:
    """Return how many documents of a query are kept where the metrics look at so many."""
    return min(MAX_RUN, max(RUN_DEPTH, depth))


def _first(hits: dict[str, float], count: int) -> dict[str, float]:
    return dict(list(hits.items())[:count])


def _measure(
    name: str,
    data: Collection,
    metrics: Sequence[str],
    encode: Callable[[str], Any],
    search: Callable[[Any, int], list[tuple[int, float]]],
) -> tuple[Evaluation, list[Any]]:
    """Return what a search by `encode` and `search` finds, with its times, and the encoded queries."""
    own, ids = data.own_documents(), [document.id for document in data.documents]
    spare = 1 if own else 0  # a query that is a document finds itself, too
    depth = search_depth(metrics, len(ids)) + spare
    timed, kept_depth = RUN_DEPTH + spare, _run_depth(depth)
    encoded, kept, encode_ms, search_ms = [], {}, [], []
    search(encode(next(iter(data.queries.values()))), timed)  # first-call costs are not a query's latency

    def run() -> Iterator[tuple[str, dict[str, float]]]:
        for query, text in progress_bar(data.queries.items(), desc=name, unit="queries", leave=False):
            started = time.perf_counter()
            encoded.append(encode(text))
            searching = time.perf_counter()
            hits = search(encoded[-1], timed)
            ended = time.perf_counter()
            encode_ms.append((searching - started) * 1000)
            search_ms.append((ended - searching) * 1000)
            if depth > timed:
                hits = search(encoded[-1], depth)
            left_out = own.get(query)
            scores = {ids[place]: score for place, score in hits if ids[place] != left_out}
            kept[query] = _first(scores, kept_depth)
            yield query, scores

    means, values = score_run(data.qrels, run(), metrics)
    costs = Costs(encode_ms=np.array(encode_ms), search_ms=np.array(search_ms))
    return Evaluation(name, means, values, kept, costs), encoded


def flops(queries: Sequence[SparseVector], frequencies: SparseVector, passages: int) -> float:
    """Return the mean products of a query and a passage (see Costs); `frequencies` are the numbers of passages that
    have a term."""
    terms = np.concatenate([query.indices for query in queries])
    counts = np.zeros(1 + max(terms.max(initial=0), frequencies.indices.max(initial=0)))
    counts[frequencies.indices] = frequencies.values
    return float(counts[terms].sum()) / max(1, passages) / len(queries)


def percentiles(values: np.ndarray) -> dict[str, float]:
    """Return the median, p50, and the slow ends, p95 and p99."""
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in PERCENTILES}
