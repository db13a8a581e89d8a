"""Measure models on a test collection against BM25, alone and fused with it, with an interval beside each difference.

    .venv/bin/python -m benchmarks.quality --collection COLLECTION --model splade-tiny --model ./fine_tuned_splade
    .venv/bin/python -m benchmarks.quality --collection COLLECTION --model splade-tiny --model seed_1 seed_2 seed_3

COLLECTION is a folder in the BEIR layout. BM25 is the toolkit's, over title and text, in the language that it detects.
A row of several models is their mean, query by query. Differences are means over queries of the row's nDCG@10 less
BM25's, and less the first row's; beside each stands the 95 % interval of a paired bootstrap over the queries
(percentile, 10,000 resamples, seed 0). "with BM25" is the sum of both systems' scores for their first 100 documents,
each over the query's highest; "over both" is that less the better of the two alone.
"""

import argparse

import numpy as np

from utils.arguments import ScriptParser
from utils.console import format_table, print_line, run_script
from utils.evaluation.reading import read_collection
from utils.evaluation.runs import bm25_run, fuse_runs, run_model, values_by_query
from utils.evaluation.significance import paired_difference
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder

METRIC = "nDCG@10"


def main(args: argparse.Namespace) -> None:
    data = read_collection(args.collection)
    print_line(f"{len(data.documents):,} documents, {len(data.queries):,} queries")
    index = BM25Index([document.full_text for document in data.documents])
    print_line(index.description)
    lexical = bm25_run(data, index)
    baseline = values_by_query(data, lexical, METRIC)
    rows = [dict.fromkeys(["system", METRIC, "terms", "over BM25", "over the first", "with BM25", "over both"], "")]
    rows[0] |= {"system": "BM25", METRIC: float(baseline.mean())}
    first = None
    for names in args.model:
        models = (SpladeEncoder.from_pretrained(name, args.device, threads=args.threads) for name in names)
        runs = [run_model(data, model, METRIC) for model in models]
        values = np.mean([run.values for run in runs], axis=0)
        fused = np.mean([values_by_query(data, fuse_runs(run.hits, lexical), METRIC) for run in runs], axis=0)
        better = max(values, baseline, key=np.mean)
        first = values if first is None else first
        rows.append(
            {
                "system": " ".join(names),
                METRIC: float(values.mean()),
                "terms": round(np.mean([run.doc_terms for run in runs])),
                "over BM25": str(paired_difference(values, baseline)),
                "over the first": "" if first is values else str(paired_difference(values, first)),
                "with BM25": float(fused.mean()),
                "over both": str(paired_difference(fused, better)),
            }
        )
    print_line(format_table(rows))


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--collection", required=True, metavar="DIR", help="a folder in the BEIR layout")
    models = "a row: a SPLADE model, or several of which it is the mean; repeatable"
    parser.add_argument("--model", action="append", nargs="+", required=True, metavar="NAME", help=models)
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
