"""What the benchmarks share: their models and texts, alternating rounds, and how results are printed."""

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
from utils.console import format_table, print_line, quiet_libraries
from utils.device import PRECISIONS
from utils.documents.reading import read_documents
from utils.models import resolve_model
from utils.splade import vnni

# Shapes with random weights. No model of 250,002 terms installs as a package; texts use the first 30,522 of them.
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
ACTIVE = 200  # mean active terms of a document, which the random models' bias is set to: about what SPLADE models have
PEER = "sentence-transformers"
CHUNK = 64  # tokens, of its chunked pooling


def parser(description: str | None, rounds: int, documents: int) -> argparse.ArgumentParser:
    """The arguments that all benchmarks have."""
    arguments = ScriptParser(description)
    add = arguments.add_argument
    add("--input-dir", required=True, metavar="PATH", help="documents to take texts from")
    add("--model-name", default="splade-tiny", help=f"a model, or a shape with random weights: {', '.join(SHAPES)}")
    add("--documents", type=positive_int, default=documents, help="documents sampled")
    add("--rounds", type=positive_int, default=rounds, help="rounds of each")
    add("--device", default=None, help="cuda, mps or cpu; default: the best one here")
    return arguments


def add_precisions(arguments: argparse.ArgumentParser) -> None:
    choices = [name for name in PRECISIONS if name != "int8" or vnni.available()]
    arguments.add_argument("--precisions", nargs="+", choices=choices, default=choices, help="in which ours runs")


def sample(args: argparse.Namespace) -> list[str]:
    """`--documents` texts of the collection, always the same."""
    quiet_libraries()
    documents = [d.full_text for d in read_documents(args.input_dir).documents if d.full_text.strip()]
    return random.Random(0).sample(documents, min(args.documents, len(documents)))


@contextlib.contextmanager
def model_folder(name: str, texts: list[str]) -> Iterator[str]:
    """The folder of a model; one of random weights is made for the occasion."""
    if name not in SHAPES:
        yield str(resolve_model(name))
        return
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**SHAPES[name])).eval()
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("splade-tiny"))
    with torch.inference_mode():
        largest = [
            model(**tokenizer(text, truncation=True, max_length=512, return_tensors="pt")).logits[0].amax(0)
            for text in texts[:8]
        ]
        model.cls.predictions.decoder.bias -= (
            torch.stack(largest).quantile(1 - ACTIVE / model.config.vocab_size, dim=1).mean()
        )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield folder


def open_peer(folder: str, device: str, dtype: torch.dtype = torch.float32, chunk: int | None = None) -> SparseEncoder:
    """`chunk`: the size of the pooling's chunks, which it leaves out by default."""
    model = MLMTransformer(folder, model_kwargs={"dtype": dtype})
    return SparseEncoder(modules=[model, SpladePooling("max", chunk_size=chunk)], device=device)


def contest(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, in alternating rounds after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def report(args: argparse.Namespace, setting: dict[str, Any], rows: list[dict[str, Any]], **results: Any) -> None:
    """Print how it was measured and the figures, as a table and as JSON."""
    setting = {
        "model": args.model_name,
        **setting,
        "rounds": args.rounds,
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        PEER: sentence_transformers.__version__,
    }
    print_line(", ".join(f"{key} {value}" for key, value in setting.items()))
    print_line(format_table(rows))
    print_line(json.dumps({**setting, "rows": rows, **results}))


def resident(field: str) -> int:
    """Bytes of this process in memory: VmRSS now, VmHWM at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def processor() -> str:
    """The processor's name as the system tells it, or the GPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
