"""Shared by the benchmarks: models and texts, timing in alternating rounds, and the report."""

import argparse
import contextlib
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
import transformers
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from utils.arguments import ScriptParser, positive_int
from utils.console import format_table, print_line, print_skipped, quiet_libraries
from utils.device import PRECISIONS, bfloat16_is_fast, resolve_device
from utils.documents.reading import read_documents
from utils.models import resolve_model
from utils.splade import kernels
from utils.splade.base_encoder import Encoder
from utils.splade.vectors import SparseVector

# Models with random weights, by their BERT configuration. The tokenizer is SPLADE-tiny's, so texts use only the first
# 30,522 of 250,002 terms: no model with that vocabulary installs as a package.
SHAPES = {
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "xlm-r-vocabulary": {
        "vocab_size": 250_002,
        "hidden_size": 384,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    },
}
ACTIVE_TERMS = 200  # mean active terms of a document, set by the random models' bias; about what SPLADE models have
PEER = "sentence-transformers"
CHUNK = 64  # tokens per chunk of the peer's chunked pooling


def parser(description: str | None, rounds: int, documents: int) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all benchmarks have; `rounds` and `documents` are defaults."""
    arguments = ScriptParser(description)
    add = arguments.add_argument
    add("--input-dir", required=True, metavar="PATH", help="documents to take texts from")
    add("--model-name", default="splade-tiny", help=f"model, or one with random weights: {', '.join(SHAPES)}")
    add("--documents", type=positive_int, default=documents, help="documents sampled")
    add("--rounds", type=positive_int, default=rounds, help="rounds per contestant")
    add("--device", default=None, help="cuda, mps or cpu; default: the best one here")
    return arguments


def add_precisions(arguments: argparse.ArgumentParser) -> None:
    """Add --precisions; see `precisions`."""
    add = arguments.add_argument
    add("--precisions", nargs="+", choices=PRECISIONS, help="precisions to run; default: all that the device runs")


def precisions(args: argparse.Namespace) -> list[str]:
    """Return --precisions, by default all that the device runs."""
    cpu = resolve_device(args.device).type == "cpu"
    missing = {"float16"} if cpu else {"int8"}
    if not kernels.available():
        missing.add("int8")
    return args.precisions or [name for name in PRECISIONS if name not in missing]


def peer_dtypes(device: str | None) -> list[torch.dtype]:
    """Return the precisions that the peer is measured in: float32, and bfloat16 where the device is fast at it."""
    return [torch.float32, torch.bfloat16] if bfloat16_is_fast(resolve_device(device)) else [torch.float32]


def sample(args: argparse.Namespace) -> list[str]:
    """Return `--documents` texts of the collection, the same ones in every run."""
    quiet_libraries()
    documents, skipped = read_documents(args.input_dir)
    print_skipped(skipped)
    texts = [document.full_text for document in documents if document.full_text.strip()]
    return random.Random(0).sample(texts, min(args.documents, len(texts)))


@contextlib.contextmanager
def model_folder(name: str, texts: list[str]) -> Iterator[str]:
    """Yield the folder of a model; one with random weights is made in a temporary folder, from the first `texts`."""
    if name not in SHAPES:
        yield str(resolve_model(name))
        return
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SHAPES[name])).eval()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("splade-tiny"))
    with torch.inference_mode():
        max_logits = [
            model(**tokenizer(text, truncation=True, max_length=512, return_tensors="pt")).logits[0].amax(0)
            for text in texts[:8]
        ]
        model.cls.predictions.decoder.bias -= (
            torch.stack(max_logits).quantile(1 - ACTIVE_TERMS / model.config.vocab_size, dim=1).mean()
        )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


def open_peer(folder: str, device: str, dtype: torch.dtype = torch.float32, chunk: int | None = None) -> SparseEncoder:
    """Load a model into sentence-transformers. `chunk`: tokens per chunk of its pooling; None, its default, for one."""
    model = MLMTransformer(folder, model_kwargs={"dtype": dtype})
    return SparseEncoder(modules=[model, SpladePooling("max", chunk_size=chunk)], device=device)


def encode_new(encoder: Encoder, texts: list[str], *options: Any) -> list[SparseVector]:
    """Encode texts as if the encoder met their words for the first time, as in a timed round it does not."""
    encoder.forget_words()
    return encoder.encode(texts, *options)


def contest(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each contestant, run in alternating rounds after an untimed warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(args: argparse.Namespace, setting: dict[str, Any], rows: list[dict[str, Any]], **results: Any) -> None:
    """Print the setting of a measurement and its figures, as a table and as JSON."""
    setting = {
        "model": args.model_name,
        **setting,
        "rounds": args.rounds,
        "machine": processor(),
        "instruction set": kernels.instruction_set(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        PEER: sentence_transformers.__version__,
    }
    print_line(", ".join(f"{key} {value}" for key, value in setting.items()))
    print_line(format_table(rows))
    print_line(json.dumps({**setting, "rows": rows, **results}))


def resident(field: str) -> int:
    """Return bytes of this process in memory, by field of /proc/self/status: VmRSS is current, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def processor() -> str:
    """Return the name of the GPU, or of the processor where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
