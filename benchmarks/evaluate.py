"""Measure how much memory and time test_evaluate.py takes for the vectors of many documents.

    .venv/bin/python -m benchmarks.evaluate --input-dir COLLECTION --vectors 1000000

The vectors are mixed of those of real passages, as in benchmarks.index, in a .npz file like embedder.py's, but
not compressed. Queries are the first eight words of documents; one judged vector each is drawn by chance, so the
metrics mean nothing.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import model_folder, parser, report, sample
from benchmarks.index import Mixer
from utils.arguments import positive_int
from utils.console import progress_bar, run_script
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import to_csr

SCRIPT = Path(__file__).parents[1] / "test_evaluate.py"
# Runs a script, then prints the most kB that it had; what the system counts of a child begins with its parent's.
MEASURED = """import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))"""
METRICS = ("nDCG@10", "RR@10", "AP@100", "R@100")


def main(args: argparse.Namespace) -> None:
    texts = sample(args)
    with model_folder(args.model_name, texts) as model, tempfile.TemporaryDirectory() as name:
        encoder = SpladeEncoder.from_pretrained(model, args.device)
        write_vectors(Path(name, "vectors.npz"), Mixer(encoder.encode(texts), encoder.vocabulary_size), args.vectors)
        write_collection(Path(name), texts, args)
        size = Path(name, "vectors.npz").stat().st_size
        started = time.perf_counter()
        command = [sys.executable, "-c", MEASURED, SCRIPT, "--model-dir", model, "--test-file", name]
        command += ["--vectors", Path(name, "vectors.npz"), "--device", str(encoder.device), "--metrics", *METRICS]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=SCRIPT.parent)
        seconds = time.perf_counter() - started
    row = {"vectors": args.vectors, "queries": args.queries, "file, MB": size / 1e6, "seconds": seconds}
    report(args, {}, [row | {"peak memory, MB": int(done.stdout.split()[-1]) / 1000}])


def write_vectors(path: Path, mixer: Mixer, count: int) -> None:
    vectors = (mixer.vector(number) for number in progress_bar(range(count), desc="vectors", unit="vectors"))
    blocks = [to_csr(block, mixer.vocabulary) for block in iter(lambda: list(itertools.islice(vectors, 10_000)), [])]
    lengths = np.concatenate([np.diff(block.indptr) for block in blocks])
    parts = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in ("data", "indices")}
    ids = np.frombuffer(json.dumps([f"document {number}" for number in range(count)]).encode(), np.uint8)
    starts, shape = np.concatenate([[0], np.cumsum(lengths)]), np.array([count, mixer.vocabulary])
    np.savez(path, format="csr", **parts, indptr=starts, shape=shape, ids=ids)


def write_collection(folder: Path, texts: list[str], args: argparse.Namespace) -> None:
    (folder / "qrels").mkdir()
    rng = random.Random(0)
    queries = [f"{' '.join(texts[i % len(texts)].split()[:8])} {i}" for i in range(args.queries)]
    lines = [json.dumps({"_id": f"q{i}", "text": query}) for i, query in enumerate(queries)]
    (folder / "queries.jsonl").write_text("\n".join(lines))
    judged = [f"q{i}\tdocument {rng.randrange(args.vectors)}\t1" for i in range(args.queries)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged))


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=1, documents=2000)
    arguments.add_argument("--vectors", type=positive_int, default=100_000, help="vectors in the file")
    arguments.add_argument("--queries", type=positive_int, default=1000, help="queries")
    run_script(main, arguments.parse_args())
