"""Measure seconds and peak memory of a training step: this toolkit against sentence-transformers' SpladeLoss.

    .venv/bin/python -m benchmarks.train --input-dir build/demo/python_docs --batch-size 32
    .venv/bin/python -m benchmarks.train --input-dir build/demo/python_docs --batch-size 128 --rounds 1

A step is collation, forward, loss, backward and AdamW on the same pairs: the first eight words of a document as the
query, the document, truncated to 192 tokens, as the positive. Nobody has dropout, as is train_splade.py's default. On
CUDA the peer also runs with its cached loss. Memory is the process's peak during the step minus what it held before; on
CUDA, the same of the allocator.
"""

import argparse
import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SparseMultipleNegativesRankingLoss, SpladeLoss

from benchmarks.common import (
    CHUNK,
    PEER,
    contest,
    model_folder,
    open_peer,
    parser,
    peer_dtypes,
    report,
    resident,
    sample,
)
from train_splade import set_dropout
from utils.arguments import positive_int
from utils.console import run_script
from utils.device import autocast
from utils.records import TrainingExample
from utils.splade.encoder import SpladeEncoder
from utils.training.batches import collate, gather_step
from utils.training.losses import contrastive_loss
from utils.training.sparsity import flops_loss
from utils.training.tokenization import tokenize_examples

QUERY_WORDS = 8  # words of a document that make its query
MAX_LENGTH = 192  # tokens per document
LAMBDA = 1e-4  # weight of the FLOPS regularization, for queries and for documents
STEADY_STEPS = 20  # steps after the timed ones over which memory must not grow
GIB = 2**30


def main(args: argparse.Namespace) -> None:
    args.documents = args.batch_size
    texts = sample(args)
    if len(texts) < args.batch_size:
        raise ValueError(f"{args.input_dir}: {len(texts)} documents are too few for a batch of {args.batch_size}")
    pairs = [(" ".join(text.split()[:QUERY_WORDS]), text) for text in texts]
    with model_folder(args.model_name, texts) as folder:
        contestants = {
            "ours": our_step(folder, args, pairs, "auto"),
            "ours, float32": our_step(folder, args, pairs, "float32"),
        }
        contestants[f"{PEER}, float32"] = peer_step(folder, args, pairs, None)
        if torch.bfloat16 in peer_dtypes(args.device):
            contestants[f"{PEER}, bfloat16"] = peer_step(folder, args, pairs, torch.bfloat16)
        if torch.cuda.is_available():
            contestants[f"{PEER}, bfloat16, cached"] = peer_step(folder, args, pairs, torch.bfloat16, cached=True)
        seconds = contest(contestants, args.rounds)
        # Apart, because memory that has been given back to the system takes time to get again.
        gib = {name: peak(step) / GIB for name, step in contestants.items()}
        contestants["ours"]()
        before = resident("VmRSS")
        for _ in range(STEADY_STEPS):
            contestants["ours"]()
        growth = (resident("VmRSS") - before) / GIB
    default = f"{PEER}, float32"
    rows = [
        {
            "": name,
            "s/step": seconds[name],
            "times the peer's default": seconds[default] / seconds[name],
            "peak GiB": gib[name],
            "of the peer's default": gib[name] / gib[default],
        }
        for name in contestants
    ]
    report(args, {"batch": args.batch_size, f"GiB more resident after {STEADY_STEPS} more steps of ours": growth}, rows)


def our_step(folder: str, args: argparse.Namespace, pairs: list[tuple[str, str]], precision: str) -> Callable[[], None]:
    """Return a function that takes one training step of this toolkit."""
    encoder = SpladeEncoder.from_pretrained(folder, args.device, MAX_LENGTH, precision).train()
    set_dropout(encoder.model, 0)
    examples = list(
        tokenize_examples([TrainingExample(query=query, positive_document=text) for query, text in pairs], encoder)
    )
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        batch = send_to_device(collate(examples, encoder), encoder.device)
        with autocast(encoder.device, precision):
            vectors = gather_step(encoder(**batch["texts"][0]), batch)
            loss = contrastive_loss(vectors.queries @ vectors.documents.T, vectors.false_negatives)
            loss = loss + LAMBDA * flops_loss(vectors.queries) + LAMBDA * flops_loss(vectors.documents)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_step(
    folder: str,
    args: argparse.Namespace,
    pairs: list[tuple[str, str]],
    dtype: torch.dtype | None,
    cached: bool = False,
) -> Callable[[], None]:
    """Return a function that takes one training step of the peer: in float32, or under autocast to `dtype`, as its
    trainer does with bf16=True; with its cached loss and chunked pooling if `cached`."""
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = open_peer(folder, device, chunk=CHUNK if cached else None).train()
    model.max_seq_length = MAX_LENGTH
    set_dropout(model, 0)
    loss_class = CachedSpladeLoss if cached else SpladeLoss
    loss = loss_class(model, SparseMultipleNegativesRankingLoss(model), LAMBDA, LAMBDA)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        features = [
            {k: v.to(model.device) if hasattr(v, "to") else v for k, v in model.preprocess(list(column)).items()}
            for column in zip(*pairs)
        ]
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not None):
            value = loss(features, torch.empty(0))
        (sum(value.values()) if isinstance(value, dict) else value).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak(step: Callable[[], None]) -> float:
    """Return the peak memory of a step, in bytes, beyond what is held before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # returns what earlier steps left in the allocator
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=3, documents=0)
    arguments.add_argument("--batch-size", type=positive_int, default=32, help="pairs per step")
    run_script(main, arguments.parse_args())
