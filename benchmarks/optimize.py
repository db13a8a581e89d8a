"""Measure what each step of optimize_model.py gains and costs, alone and together, in one run.

    .venv/bin/python -m benchmarks.optimize --input-dir COLLECTION --model-name ./fine_tuned_splade \
        --test-file COLLECTION --peer-python /path/to/environment/bin/python
    .venv/bin/python -m benchmarks.optimize --input-dir COLLECTION --model-name bert-base --documents 40 --rounds 2

All rows encode the same documents on the CPU. The terms that stay are those that the model gives to any document of
the collection, and to the training queries that it names; for a model with random weights, those that splade-tiny
gives. The peer, left out without --peer-python, is sentence-transformers with its ONNX backend, in float32 and in the
INT8 that it exports itself, each at its faster batch size of 8 and 32; the interpreter's environment needs
`sentence-transformers[onnx]`, whose versions may differ from ours:

    python -m venv peer && peer/bin/pip install torch 'sentence-transformers[onnx]'
"""

import argparse
import contextlib
import functools
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import scipy.sparse
import torch

from benchmarks.common import PEER, SHAPES, contest, encode_new, model_folder, parser, report, sample
from optimize_model import cut_vocabulary, evenly, load_documents, training_queries
from utils.arguments import positive_int
from utils.console import run_script
from utils.device import use_threads
from utils.evaluation.collection import Collection
from utils.evaluation.reading import read_test_data
from utils.evaluation.runs import RUN_DEPTH
from utils.evaluation.systems import evaluate_model, evaluate_run
from utils.export.calibration import TEXTS, input_moments
from utils.export.folders import Optimization, write_optimized
from utils.export.measuring import RECORDS
from utils.export.vocabulary import VocabularyUse, measure_use
from utils.splade.base_encoder import Encoder
from utils.splade.opening import open_encoder

METRIC = "nDCG@10"
FIRST = "ours, float32"
PEER_INT8 = f"{PEER} ONNX, int8"
PEER_BATCHES = (8, 32)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json", "special_tokens_map.json")


class Peer:
    """sentence-transformers' ONNX models in a process of another interpreter.

    Args:
        python: the interpreter.
        folder: the model, as transformers opens it.
        work: folder for what the peer writes.
        texts: documents that `encode` encodes.

    Raises:
        ValueError: the interpreter lacks a library, or the peer cannot do it.
        OSError: there is no such interpreter.
    """

    def __init__(self, python: str, folder: str, work: str, texts: Sequence[str]) -> None:
        self.python = python
        self.log = Path(work, "log.txt")
        self.log.touch()
        script = Path(__file__).with_name("onnx_peer.py")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with self.log.open("w") as log:
            # -I leaves the folder of the script out of the path, where our modules have names of libraries.
            self.process = subprocess.Popen([python, "-I", script], stderr=log, **pipes)
        options = {"config": _quantization(), "threads": torch.get_num_threads(), "documents": list(texts)}
        answer = self.ask("open_models", folder=folder, work=work, **options)
        self.versions = answer.pop("versions") | {"its INT8": options["config"]}
        self.graphs: dict[str, str] = answer
        self.batches = {model: min(PEER_BATCHES, key=functools.partial(self._seconds, model)) for model in self.graphs}

    def ask(self, request: str, **arguments: Any) -> Any:
        try:
            print(json.dumps([request, arguments]), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if "result" not in answer:
            last = self.log.read_text().strip().splitlines()[-1:]
            raise ValueError(f"{self.python}: {answer.get('error') or ''.join(last) or 'it ended'}")
        return answer["result"]

    def _seconds(self, model: str, batch: int) -> float:
        started = time.perf_counter()
        self.ask("encode", model=model, batch=batch)
        return time.perf_counter() - started

    def evaluate(self, model: str, data: Collection) -> float:
        """Return the peer's METRIC on a collection."""
        texts = [document.full_text for document in data.documents] + list(data.queries.values())
        path = str(self.log.with_name("vectors.npz"))
        self.ask("write_vectors", model=model, batch=self.batches[model], path=path, others=texts)
        vectors = scipy.sparse.load_npz(path)
        scores = (vectors[len(data.documents) :] @ vectors[: len(data.documents)].T).toarray()
        ids = [document.id for document in data.documents]
        run = {}
        for query, row in zip(data.queries, scores):
            best = np.argsort(-row, kind="stable")[: RUN_DEPTH + 1]
            run[query] = {ids[place]: float(row[place]) for place in best}
        return evaluate_run(model, run, data, [METRIC]).means[METRIC]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _quantization() -> str:
    """Return the setting that sentence-transformers' documentation names for this processor."""
    if torch.cpu._is_vnni_supported():
        return "avx512_vnni"
    return "avx512" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "avx2"


@contextlib.contextmanager
def open_peer(python: str | None, folder: str, texts: Sequence[str]) -> Iterator[Peer | None]:
    """Yield the peer, None without an interpreter."""
    if python is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as work:
        peer = Peer(python, folder, work, texts)
        yield peer
        peer.close()


def vocabulary_use(args: argparse.Namespace, folder: str, size: int) -> VocabularyUse:
    """Return what the collection uses of a vocabulary of `size` terms."""
    encoder = open_encoder("splade-tiny" if args.model_name in SHAPES else folder, "cpu")
    queries = training_queries(None, encoder)
    use = measure_use(encoder, load_documents(args.input_dir), queries, args.prune_inputs)
    more = max(0, size - len(use.weights))
    return use._replace(weights=np.pad(use.weights, (0, more)), pieces=np.pad(use.pieces, (0, more)))


def steps(cut: Optimization) -> dict[str, tuple[Optimization | None, str]]:
    """Return, by row, what is done to the model and the precision in which it is opened."""
    int8 = Optimization(precision="int8", moments=cut.moments)
    terms = Optimization(terms=cut.terms)
    rows: dict[str, tuple[Optimization | None, str]] = {
        FIRST: (None, "float32"),
        "ours, auto": (None, "auto"),
        "pruned, float32": (terms, "float32"),
        "pruned, auto": (terms, "auto"),
        "int8": (int8, "auto"),
        "pruned, int8": (int8._replace(terms=cut.terms), "auto"),
    }
    if cut.pieces is not None:
        rows["pruned, inputs too, int8"] = (cut._replace(precision="int8"), "auto")
    return rows | {
        "ONNX, float32": (Optimization(graph="onnx"), "auto"),
        "pruned, ONNX, float32": (terms._replace(graph="onnx"), "auto"),
        "pruned, ONNX, int8": (int8._replace(terms=cut.terms, graph="onnx"), "auto"),
    }


def megabytes(files: Sequence[Path]) -> float:
    return sum(file.stat().st_size for file in files if file.is_file() and file.name not in RECORDS) / 1e6


def main(args: argparse.Namespace) -> None:
    args.prune_vocabulary = args.input_dir
    use_threads(args.threads)
    texts = sample(args)
    data = read_test_data(args.test_file) if args.test_file else None
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(model_folder(args.model_name, texts))
        original = open_encoder(folder, "cpu", precision="float32")
        use = vocabulary_use(args, folder, original.vocabulary_size)
        calibrating = [document.full_text for document in evenly(load_documents(args.input_dir), TEXTS)]
        cut = Optimization(moments=input_moments(original, calibrating))
        cut = cut_vocabulary(cut, use, original, args)
        peer = stack.enter_context(open_peer(args.peer_python, folder, texts))
        encoders: dict[str, Encoder] = {}
        sizes: dict[str, float] = {}
        for name, (optimization, precision) in steps(cut).items():
            place = folder
            if optimization:
                place = stack.enter_context(tempfile.TemporaryDirectory())
                write_optimized(folder, optimization, place, {})
            encoders[name] = open_encoder(place, "cpu", precision=precision)
            sizes[name] = megabytes(list(Path(place).glob("*")))
        contestants: dict[str, Callable[[], object]] = {
            name: functools.partial(encode_new, encoder, texts) for name, encoder in encoders.items()
        }
        for model in peer.graphs if peer else ():
            name = f"{PEER} ONNX, {model}"
            contestants[name] = functools.partial(peer.ask, "encode", model=model, batch=peer.batches[model])
            beside = [Path(peer.graphs[model]).parents[1] / file for file in TOKENIZER_FILES]
            sizes[name] = megabytes([Path(peer.graphs[model]), *beside])
        seconds = contest(contestants, args.rounds)
        quality: dict[str, float] = {}
        if data:
            quality = {
                name: evaluate_model(name, each, data, [METRIC]).means[METRIC] for name, each in encoders.items()
            }
            for model in peer.graphs if peer else ():
                quality[f"{PEER} ONNX, {model}"] = peer.evaluate(model, data)
        tokens = statistics.mean(map(len, original.tokenize(texts)))
    rows = []
    for name, taken in seconds.items():
        row = {
            "": name,
            "MB": sizes[name],
            "of float32": sizes[name] / sizes[FIRST],
            "documents/s": len(texts) / taken,
            "times float32": seconds[FIRST] / taken,
        }
        if peer:
            row["times peer's INT8"] = seconds[PEER_INT8] / taken
        if data:
            row |= {METRIC: quality[name], "difference": f"{quality[name] - quality[FIRST]:+.4f}"}
        rows.append(row)
    setting = {"documents": len(texts), "mean tokens": round(tokens, 1), "terms": len(cut.terms)}
    setting |= {"tokens": len(cut.pieces)} if cut.pieces is not None else {}
    setting |= {"capability": torch.backends.cpu.get_cpu_capability(), "VNNI": torch.cpu._is_vnni_supported()}
    setting |= {"onnxruntime": onnxruntime.__version__}
    setting |= peer.versions | {"its batches": peer.batches} if peer else {}
    report(args, setting, rows)


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=3, documents=300)
    add = arguments.add_argument
    add("--test-file", default=None, metavar="PATH", help="judged queries for the quality, as for test_evaluate.py")
    add("--keep-terms", type=positive_int, default=None, metavar="N", help="keep the N heaviest terms alone")
    add("--prune-inputs", action="store_true", help="a row more, where tokens are cut too")
    add("--threads", type=positive_int, default=None, help="processor threads; default: one a core")
    add("--peer-python", default=None, metavar="FILE", help="interpreter that has sentence-transformers[onnx]")
    run_script(main, arguments.parse_args())
