"""Measure documents encoded per second: this toolkit against sentence-transformers' SparseEncoder, in one run.

    .venv/bin/pip install -r tests/requirements.txt -c constraints.txt
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs --model-name bert-base --documents 40
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs --model-name xlm-r-vocabulary \
        --documents 24 --peer-batches 8 2
    .venv/bin/python -m benchmarks.encode --input-dir build/demo/python_docs --precisions auto --batch-sizes 2 4 8 auto

Both encode the same documents with the same model. The peer runs in float32, its default, and in bfloat16, each with
batches of 32 (its default) and of 8; on CUDA also in bfloat16 with its chunked pooling. The peak is that of the memory
which torch takes on CUDA, above what it held before.
"""

import argparse
import functools
import statistics
from collections.abc import Callable

import torch

from benchmarks.common import (
    CHUNK,
    PEER,
    add_precisions,
    contest,
    encode_new,
    model_folder,
    open_peer,
    parser,
    peer_dtypes,
    precisions,
    report,
    sample,
)
from utils.arguments import auto_or_positive_int, positive_int
from utils.console import run_script
from utils.splade.encoder import SpladeEncoder


def main(args: argparse.Namespace) -> None:
    texts = sample(args)
    contestants: dict[str, Callable[[], object]] = {}
    with model_folder(args.model_name, texts) as folder:
        for precision in precisions(args):
            encoder = SpladeEncoder.from_pretrained(folder, args.device, precision=precision)
            for batch in args.batch_sizes or [None]:
                name = f"ours, {precision}" + (f", batch {batch}" if batch else "")
                contestants[name] = functools.partial(encode_new, encoder, texts, args.max_length, batch)
        settings: list[tuple[torch.dtype, int | None]] = [(dtype, None) for dtype in peer_dtypes(args.device)]
        if encoder.device.type == "cuda":
            settings.append((torch.bfloat16, CHUNK))
        for dtype, chunk in settings:
            peer = open_peer(folder, str(encoder.device), dtype, chunk)
            peer.max_seq_length = args.max_length or encoder.max_length
            for batch in args.peer_batches:
                name = f"{PEER}, {str(dtype).removeprefix('torch.')}, batch {batch}" + ", chunked" * bool(chunk)
                contestants[name] = lambda peer=peer, batch=batch: peer.encode(
                    texts, batch_size=batch, show_progress_bar=False
                )
        seconds = contest(contestants, args.rounds)
        peaks = {name: peak_bytes(run) for name, run in contestants.items()} if torch.cuda.is_available() else {}
    rates = {name: len(texts) / taken for name, taken in seconds.items()}
    best = {
        dtype: max(rate for name, rate in rates.items() if name.startswith(f"{PEER}, {dtype}"))
        for dtype in (str(dtype).removeprefix("torch.") for dtype in peer_dtypes(args.device))
    }
    rows = [
        {
            "": name,
            "documents/s": rate,
        }
        | {f"times its {dtype}": rate / of_peer for dtype, of_peer in best.items()}
        | ({"peak MiB": peaks[name] / 2**20} if peaks else {})
        for name, rate in rates.items()
    ]
    vectors = encoder.encode(texts)
    setting = {
        "documents": len(texts),
        "mean tokens": round(statistics.mean(map(len, encoder.tokenize(texts, args.max_length))), 1),
        "mean active terms": round(statistics.mean(len(v.indices) for v in vectors), 1),
    }
    report(args, setting, rows)


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the most memory on CUDA that a run takes, above what is held before it."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - held


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=3, documents=300)
    add_precisions(arguments)
    arguments.add_argument("--batch-sizes", type=auto_or_positive_int, nargs="+", help="ours; default: auto")
    arguments.add_argument("--max-length", type=positive_int, help="tokens of a document; default: the model's limit")
    arguments.add_argument(
        "--peer-batches", type=positive_int, nargs="+", default=[32, 8], help="the peer's batch sizes"
    )
    run_script(main, arguments.parse_args())
