"""Documents encoded a second: this toolkit against sentence-transformers' SparseEncoder, side by side in one run.

    .venv/bin/pip install -r benchmarks/requirements.txt -c constraints.txt
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs
    .venv/bin/python -m benchmarks.encode --input-dir COLLECTION --documents 1400 --rounds 1

Both encode the same documents with the same model, in alternating rounds; the median round counts. The peer runs at its
defaults (float32, batches of 32) and at its better batch size of 8.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import sentence_transformers
import torch
import transformers
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

from utils.console import Parser, positive_int, quiet_libraries, run_script, say, table
from utils.documents import read_documents
from utils.encoder import SpladeEncoder
from utils.models import resolve_model


def main(args: argparse.Namespace) -> None:
    documents = [document.full_text for document in read_documents(args.input_dir).documents]
    texts = random.Random(0).sample(documents, min(args.documents, len(documents)))
    ours = SpladeEncoder.from_pretrained(args.model_name, args.device)
    exact = SpladeEncoder.from_pretrained(args.model_name, args.device, precision="float32")
    folder = resolve_model(args.model_name)
    peer = SparseEncoder(modules=[MLMTransformer(folder), SpladePooling("max")], device=str(ours.device))
    quiet_libraries()
    contestants: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.encode(texts),
        "ours, float32": lambda: exact.encode(texts),
        "sentence-transformers, batch 32": lambda: peer.encode(texts, batch_size=32, show_progress_bar=False),
        "sentence-transformers, batch 8": lambda: peer.encode(texts, batch_size=8, show_progress_bar=False),
    }
    ours.encode(texts[:32])
    peer.encode(texts[:8])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.rounds):
        for name, encode in contestants.items():
            started = time.perf_counter()
            encode()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    best_peer = max(rate for name, rate in rates.items() if name.startswith("sentence"))
    rows = [{"": name, "documents/s": rate, "times the peer's best": rate / best_peer} for name, rate in rates.items()]
    tokens = statistics.mean(map(len, ours.tokenize(texts)))
    setting = {
        "model": args.model_name,
        "documents": len(texts),
        "mean tokens": round(tokens, 1),
        "rounds": args.rounds,
        "device": str(ours.device),
        "threads": torch.get_num_threads(),
        "machine": processor(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence-transformers": sentence_transformers.__version__,
    }
    say(", ".join(f"{key} {value}" for key, value in setting.items()))
    say(table(rows))
    say(json.dumps({**setting, "documents_per_second": rates, "ratio": rates["ours"] / best_peer}))


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--input-dir", required=True, metavar="PATH", help="documents to encode")
    add("--model-name", default="splade-tiny", help="splade-tiny, a model folder or a hub id")
    add("--documents", type=positive_int, default=300, help="documents sampled")
    add("--rounds", type=positive_int, default=3, help="rounds of each")
    add("--device", default=None, help="cuda, mps or cpu; default: the best one here")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
