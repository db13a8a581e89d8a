"""Documents encoded a second: this toolkit against sentence-transformers' SparseEncoder, side by side in one run.

    .venv/bin/pip install -r benchmarks/requirements.txt -c constraints.txt
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs --model-name bert-base --documents 40

Both encode the same documents with the same model. The peer runs at its default precision, float32, and in bfloat16,
each with batches of 32 (its default) and of 8.
"""

import argparse
import statistics
from collections.abc import Callable

import torch

from benchmarks.common import PEER, contest, model_folder, open_peer, parser, report, sample
from utils.console import run_script
from utils.encoder import SpladeEncoder


def main(args: argparse.Namespace) -> None:
    texts = sample(args)
    contestants: dict[str, Callable[[], object]] = {}
    with model_folder(args.model_name, texts) as folder:
        ours = SpladeEncoder.from_pretrained(folder, args.device)
        exact = SpladeEncoder.from_pretrained(folder, args.device, precision="float32")
        contestants["ours"] = lambda: ours.encode(texts)
        contestants["ours, float32"] = lambda: exact.encode(texts)
        for dtype in (torch.float32, torch.bfloat16):
            peer = open_peer(folder, str(ours.device), dtype)
            for batch in (32, 8):
                name = f"{PEER}, {str(dtype).removeprefix('torch.')}, batch {batch}"
                contestants[name] = lambda peer=peer, batch=batch: peer.encode(
                    texts, batch_size=batch, show_progress_bar=False
                )
        seconds = contest(contestants, args.rounds)
    rates = {name: len(texts) / taken for name, taken in seconds.items()}
    best = {
        dtype: max(rate for name, rate in rates.items() if f", {dtype}, batch" in name)
        for dtype in ("float32", "bfloat16")
    }
    rows = [
        {
            "": name,
            "documents/s": rate,
            "times its float32": rate / best["float32"],
            "times its bfloat16": rate / best["bfloat16"],
        }
        for name, rate in rates.items()
    ]
    vectors = ours.encode(texts)
    setting = {
        "documents": len(texts),
        "mean tokens": round(statistics.mean(map(len, ours.tokenize(texts))), 1),
        "mean active terms": round(statistics.mean(len(v.indices) for v in vectors), 1),
    }
    report(args, setting, rows)


if __name__ == "__main__":
    run_script(main, parser(__doc__, rounds=3, documents=300).parse_args())
