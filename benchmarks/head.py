"""Measure the SPLADE head alone, forward and forward + backward: this toolkit against the plain formula, in one run.

    .venv/bin/python -m benchmarks.head --input-dir build/demo/python_docs
    .venv/bin/python -m benchmarks.head --input-dir build/demo/python_docs --model-name xlm-r-vocabulary --documents 16

The plain formula is log1p(relu(h W^T + b)), mask, max over tokens, on padded batches of 8 texts sorted by length, in
float32 and bfloat16, eager and under torch.compile. The hidden states are those of real texts. TOP/s count the dense
product's operations, 2 x tokens x hidden x vocabulary, of which `sparse result` leaves some out where directions pay
(utils/splade/directions.py). They are also given as shares of the rate that torch reaches on a square float32 product
in this process, and of what the processor computes on codes in registers (cpp/rate.cpp).
"""

import argparse
import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks.common import contest, model_folder, parser, report, sample
from utils.console import run_script
from utils.processor import INSTRUCTION_SETS
from utils.splade import kernels
from utils.splade.directions import NEEDED_TOKENS
from utils.splade.encoder import SpladeEncoder
from utils.splade.head import active_terms, splade_head
from utils.splade.native import build_library

PEER_BATCH = 8  # texts per padded batch of the plain formula


def main(args: argparse.Namespace) -> None:
    texts = sample(args)
    with model_folder(args.model_name, texts) as folder:
        encoder = SpladeEncoder.from_pretrained(folder, args.device, precision="float32")
        tokens = sorted(encoder.tokenize(texts), key=len)
        with torch.no_grad():
            padded = [{k: v.to(encoder.device) for k, v in encoder.pad([row]).items()} for row in tokens]
            states = [encoder._hidden_states(**batch)[0] for batch in padded]
        projection = encoder.model.get_output_embeddings()
    lengths = [len(state) for state in states]
    weight, bias = projection.weight.detach(), projection.bias.detach()
    packed = torch.cat(states)
    batches = [pad(states[i : i + PEER_BATCH]) for i in range(0, len(states), PEER_BATCH)]
    compiled = torch.compile(plain, dynamic=True)
    forward: dict[str, Callable[[], object]] = {
        "ours, sparse result": lambda: active_terms(packed, lengths, weight, bias),
        "ours": lambda: splade_head(packed, lengths, weight, bias),
    }
    backward: dict[str, Callable[[], object]] = {
        "ours": lambda: train(lambda h, w, b: splade_head(h, lengths, w, b), [packed, weight, bias])
    }
    for dtype in (torch.float32, torch.bfloat16):
        cast_weight, cast_bias = weight.to(dtype), bias.to(dtype)
        for name, formula in (("plain", plain), ("torch.compile", compiled)):
            name = f"{name}, {str(dtype).removeprefix('torch.')}"
            run = functools.partial(
                over_batches, formula, [(hidden.to(dtype), mask) for hidden, mask in batches], cast_weight, cast_bias
            )
            forward[name], backward[name] = run, functools.partial(run, backward=True)
    for _ in range(1 + NEEDED_TOKENS * packed.shape[1] // len(packed)):  # enough for directions to be chosen
        active_terms(packed, lengths, weight, bias)
    operations = 2 * packed.numel() * len(weight)
    peak, codes = matrix_rate(encoder.device), code_rate(encoder.device)
    setting = {"texts": len(texts), "tokens": len(packed), "hidden": packed.shape[1], "vocabulary": len(weight)}
    rows = []
    for stage, contestants in (("forward", forward), ("forward + backward", backward)):
        with torch.set_grad_enabled(stage != "forward"):
            seconds = contest(contestants, args.rounds)
        for name, taken in seconds.items():
            row = {
                "": f"{stage}: {name}",
                "ms/text": taken / len(texts) * 1000,
                "times faster": taken / seconds["ours"],
            }
            if stage == "forward":
                row |= {"TOP/s": operations / taken / 1e12, "share of float32 rate": operations / taken / peak}
                if codes:
                    row["share of codes' rate"] = operations / taken / codes
            rows.append(row)
    report(args, {**setting, "float32 TFLOP/s": round(peak / 1e12, 3), "8-bit TOP/s": round(codes / 1e12, 3)}, rows)


def code_rate(device: torch.device) -> float:
    """Return the operations a second on 8-bit codes of all threads together, on the CPU; 0 without kernels."""
    name = kernels.instruction_set()
    if device.type != "cpu" or name is None:
        return 0
    sources = Path(__file__).parent / "cpp"
    library = ctypes.CDLL(str(build_library(sources, f"rate-{name}", INSTRUCTION_SETS[name].flags)))
    library.products_per_second.restype = ctypes.c_double
    return 2 * torch.get_num_threads() * max(library.products_per_second() for _ in range(3))


def plain(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute [texts, vocabulary] by the formula, through all logits of padded texts [texts, longest, hidden]."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return (torch.log1p(torch.relu(logits)) * mask[:, :, None]).amax(1)


def pad(states: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded states [texts, longest, hidden] and their mask [texts, longest]."""
    lengths = torch.tensor([len(state) for state in states])
    padded = pad_sequence(states, batch_first=True)
    return padded, (torch.arange(padded.shape[1]) < lengths[:, None]).to(padded.device)


def over_batches(
    formula: Callable[..., torch.Tensor],
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    weight: torch.Tensor,
    bias: torch.Tensor,
    backward: bool = False,
) -> None:
    """Run `formula` on each batch, with its backward pass if `backward`."""
    for hidden, mask in batches:
        if backward:
            train(lambda h, w, b, mask=mask: formula(h, w, b, mask), [hidden, weight, bias])
        else:
            formula(hidden, weight, bias, mask)


def train(head: Callable[..., torch.Tensor], tensors: list[torch.Tensor]) -> None:
    """Run `head` forward and backward, with gradients of all `tensors`."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    head(*leaves).square().sum().backward()


def matrix_rate(device: torch.device, size: int = 2048) -> float:
    """Return the operations per second of a square float32 matrix product of this size."""
    a, b = torch.randn(2, size, size, device=device)
    return 2 * size**3 / contest({"product": lambda: a @ b}, 5)["product"]


if __name__ == "__main__":
    run_script(main, parser(__doc__, rounds=3, documents=32).parse_args())
