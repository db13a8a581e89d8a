"""Measure models on a test collection against BM25, with an interval beside each difference.

    .venv/bin/python -m benchmarks.quality --collection COLLECTION --model splade-tiny --model ./fine_tuned_splade

COLLECTION is a folder in the BEIR layout. BM25 is the toolkit's, over title and text, in the language that it detects.
Differences are means over queries of the system's nDCG@10 less BM25's, and less the first model's; beside each stands
the 95 % interval of a paired bootstrap over the queries (percentile, 10,000 resamples, seed 0).
"""

import argparse

import ir_measures
import numpy as np
from scipy.stats import bootstrap

from utils.arguments import ScriptParser
from utils.console import format_table, print_line, run_script
from utils.evaluation.collection import Collection, read_collection
from utils.search.index import SearchIndex
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder

METRIC = "nDCG@10"
DEPTH = 100  # documents retrieved for a query
RESAMPLES = 10_000  # of the bootstrap; the ends of an interval then vary by about a hundredth of its width

Run = dict[str, dict[str, float]]


def bm25_run(data: Collection) -> Run:
    """Return BM25's scores by query and document."""
    index = BM25Index([document.full_text for document in data.documents])
    print_line(index.description)
    hits = index.search(list(data.queries.values()), DEPTH)
    return {query: {data.documents[i].id: score for i, score in found} for query, found in zip(data.queries, hits)}


def splade_run(data: Collection, model: SpladeEncoder) -> Run:
    """Return a model's scores by query and document."""
    index = SearchIndex(model.encode([document.full_text for document in data.documents], show_progress=True))
    return {
        query: {data.documents[i].id: score for i, score in index.search(model.encode_query(text), DEPTH)}
        for query, text in data.queries.items()
    }


def per_query(data: Collection, run: Run) -> np.ndarray:
    """Return the metric of each query, in their order; 0 for one without a hit."""
    found = {
        part.query_id: part.value
        for part in ir_measures.iter_calc([ir_measures.parse_measure(METRIC)], data.qrels, run)
    }
    return np.array([found.get(query, 0.0) for query in data.qrels])


def with_interval(difference: np.ndarray) -> str:
    """Return the mean of paired differences and its 95 % interval, as text."""
    rng = np.random.default_rng(0)
    found = bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng)
    low, high = found.confidence_interval
    return f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main(args: argparse.Namespace) -> None:
    data = read_collection(args.collection)
    print_line(f"{len(data.documents):,} documents, {len(data.queries):,} queries")
    baseline = per_query(data, bm25_run(data))
    rows = [{"system": "BM25", METRIC: float(baseline.mean()), "over BM25": "", "over the first model": ""}]
    first = None
    for name in args.model:
        model = SpladeEncoder.from_pretrained(name, args.device, threads=args.threads)
        values = per_query(data, splade_run(data, model))
        row = {"system": name, METRIC: float(values.mean()), "over BM25": with_interval(values - baseline)}
        if first is not None:
            row["over the first model"] = with_interval(values - first)
        first = values if first is None else first
        rows.append(row)
    print_line(format_table(rows))


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--collection", required=True, metavar="DIR", help="a folder in the BEIR layout")
    parser.add_argument("--model", action="append", required=True, metavar="NAME", help="a SPLADE model; repeatable")
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
