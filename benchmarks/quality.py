"""Measure models on a test collection against BM25, with an interval beside each difference.

    .venv/bin/python -m benchmarks.quality --collection COLLECTION --model splade-tiny --model ./fine_tuned_splade

COLLECTION is a folder in the BEIR layout. BM25 is the toolkit's, over title and text, in the language that it detects.
Differences are means over queries of the system's nDCG@10 less BM25's, and less the first model's; beside each stands
the 95 % interval of a paired bootstrap over the queries (percentile, 10,000 resamples, seed 0).
"""

import argparse

from utils.arguments import ScriptParser
from utils.console import format_table, print_line, run_script
from utils.evaluation.collection import read_collection
from utils.evaluation.runs import bm25_run, run_model, values_by_query
from utils.evaluation.significance import paired_difference
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder

METRIC = "nDCG@10"


def main(args: argparse.Namespace) -> None:
    data = read_collection(args.collection)
    print_line(f"{len(data.documents):,} documents, {len(data.queries):,} queries")
    index = BM25Index([document.full_text for document in data.documents])
    print_line(index.description)
    baseline = values_by_query(data, bm25_run(data, index), METRIC)
    rows = [{"system": "BM25", METRIC: float(baseline.mean()), "over BM25": "", "over the first model": ""}]
    first = None
    for name in args.model:
        model = SpladeEncoder.from_pretrained(name, args.device, threads=args.threads)
        values = run_model(data, model, METRIC).values
        row = {"system": name, METRIC: float(values.mean()), "over BM25": str(paired_difference(values, baseline))}
        if first is not None:
            row["over the first model"] = str(paired_difference(values, first))
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
