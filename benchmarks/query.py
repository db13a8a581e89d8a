"""Measure milliseconds per short query: this toolkit against sentence-transformers' SparseEncoder, in one run.

    .venv/bin/python -m benchmarks.query --input-dir build/demo/python_docs

Queries are the first eight words of documents, encoded one at a time, in alternating rounds of all queries in the same
order; figures are the median, the 95th percentile, and the median of the rounds' first queries, which find in no cache
what they need. With `idf` a query does not pass the model: its vector is its tokens' weights.
"""

import argparse
import statistics
import time

import torch

from benchmarks.common import PEER, model_folder, open_peer, parser, peer_dtypes, report, sample
from utils.console import run_script
from utils.splade.encoder import SpladeEncoder
from utils.splade.opening import open_encoder


def main(args: argparse.Namespace) -> None:
    queries = [" ".join(text.split()[:8]) for text in sample(args)]
    with model_folder(args.model_name, queries) as folder:
        ours = open_encoder(folder, args.device)
        exact = open_encoder(folder, args.device, precision="float32")
        idf = SpladeEncoder.from_pretrained(folder, args.device)  # as trained by --query-encoder idf
        idf.query_weights = torch.nn.Parameter(torch.ones(idf.model.config.vocab_size, device=idf.device))
        contestants = {"ours": ours.encode_query, "ours, float32": exact.encode_query, "ours, idf": idf.encode_query}
        for dtype in peer_dtypes(args.device):
            peer = open_peer(folder, str(ours.device), dtype)
            name = f"{PEER}, {str(dtype).removeprefix('torch.')}"
            contestants[name] = lambda query, peer=peer: peer.encode_query(query, show_progress_bar=False).cpu()
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(args.rounds):
            for name, encode in contestants.items():
                for query in queries:
                    started = time.perf_counter()
                    encode(query)
                    seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) * 1000 for name, times in seconds.items()}
    best = min(value for name, value in medians.items() if name.startswith(PEER))
    rows = [
        {
            "": name,
            "p50 ms": value,
            "p95 ms": statistics.quantiles(seconds[name], n=20)[-1] * 1000,
            "first ms": statistics.median(seconds[name][:: len(queries)]) * 1000,
            "peer's best over it": best / value,
        }
        for name, value in medians.items()
    ]
    tokens = round(statistics.mean(map(len, ours.tokenize(queries))), 1)
    report(args, {"queries": len(queries), "mean tokens": tokens}, rows)


if __name__ == "__main__":
    run_script(main, parser(__doc__, rounds=5, documents=100).parse_args())
