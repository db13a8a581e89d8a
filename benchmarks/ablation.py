"""Take the recipe apart: tune with one part of it changed at a time, on several collections and seeds.

    .venv/bin/python -m benchmarks.ablation --collection DIR ... --work-dir ablation
    .venv/bin/python -m benchmarks.ablation --collection DIR ... --work-dir ablation --rows "recipe" "without BM25"

A row is one run of train_splade.py, with the options beside it, for each collection (a folder in the BEIR layout) and
seed. It trains on queries cut out of the collection's documents, without validation: what is measured is tuning itself.
Figures are nDCG@10, means over the seeds. Differences are means over the collections of those over their queries, with
the 95 % interval of a bootstrap over the queries of each (percentile, 10,000 resamples, seed 0): to the untuned model,
to the first row, and to BM25; "fused over both" is the sum with BM25 (benchmarks.quality) less the better of the two
alone. "terms" are a document's, over the untuned model's.

What is in the work folder is not made again, so that a run can be interrupted, and rows added. It is for one state of
the code and one run at a time. --workers trains several models at a time, which one GPU has room for.
"""

import argparse
import functools
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from utils.arguments import ScriptParser, positive_int
from utils.console import format_table, print_line, progress_bar, run_script
from utils.evaluation.collection import Collection
from utils.evaluation.reading import read_collection
from utils.evaluation.runs import Run, bm25_run, fuse_runs, run_model, values_by_query
from utils.evaluation.significance import BATCH, RESAMPLES
from utils.files import replacing
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder
from utils.training.checkpoints import HISTORY_NAME

METRIC = "nDCG@10"
UNTUNED = "splade-tiny"
SCRIPTS = Path(__file__).resolve().parents[1]
# Options of train_splade.py, and of generate_training_data.py.
ROWS = {
    "recipe": ("--teacher minilm bm25", ""),
    "double rate": ("--teacher minilm bm25 --learning-rate 3e-4", ""),
    "double rate, more queries": ("--teacher minilm bm25 --learning-rate 3e-4", "--crops 7"),
    "double rate, BM25 doubled": ("--teacher minilm bm25=2 --learning-rate 3e-4", ""),
    "double rate and epochs": ("--teacher minilm bm25 --learning-rate 3e-4 --epochs 6", ""),
    "without MiniLM": ("--teacher bm25", ""),
    "without BM25": ("--teacher minilm", ""),
    "almost without the untuned model": ("--teacher minilm bm25 untuned=0.001", ""),
    "without a teacher": ("--loss contrastive", ""),
    "half without a teacher": ("--teacher minilm bm25 --loss contrastive=0.5 kl-batch=0.5", ""),
    "without a regularizer": ("--teacher minilm bm25 --lambda-d 0 --lambda-q 0", ""),
}


class Result(NamedTuple):
    """Of a model on a collection: [queries] nDCG@10 alone, fused with BM25, and of BM25; mean terms of a document."""

    values: np.ndarray
    fused: np.ndarray
    bm25: np.ndarray
    terms: float


def main(args: argparse.Namespace) -> None:
    if unknown := set(args.rows) - ROWS.keys():
        raise ValueError(f"--rows {min(unknown)}: the rows are {'; '.join(ROWS)}")
    folders = {collection.name: collection for collection in (Path(path).resolve() for path in args.collection)}
    if len(folders) < len(args.collection):
        raise ValueError("--collection: two of them have the same name")
    for collection in folders.values():
        _open(collection)
    work_dir = Path(args.work_dir).resolve()
    seeds, rows = list(dict.fromkeys(args.seeds)), list(dict.fromkeys(args.rows))
    with ThreadPoolExecutor(args.workers) as pool:  # the work is done in processes of their own
        made = dict.fromkeys((collection, ROWS[row][1]) for collection in folders.values() for row in rows)
        list(pool.map(lambda part: _generate(work_dir, *part), made))
        jobs = list(product(rows, folders.values(), seeds))
        tuned = pool.map(lambda job: _tune(work_dir, *job), jobs)
        list(progress_bar(tuned, total=len(jobs), desc="tuning", unit="models"))
    table, first = [], None
    untuned = [_measure(work_dir, collection, UNTUNED) for collection in folders.values()]
    for row in rows:
        line, means = {"row": row, "options": " ".join(ROWS[row]).strip()}, []
        for collection in folders.values():
            results = [_measure(work_dir, collection, _model_name(row, seed)) for seed in seeds]
            means.append(Result(*(np.mean(part, axis=0) for part in zip(*results))))
            line[collection.name] = float(means[-1].values.mean())
        line["over the untuned"] = _difference([m.values - before.values for m, before in zip(means, untuned)])
        line["over the first row"] = (
            _difference([m.values - of_first for m, of_first in zip(means, first)]) if first else ""
        )
        line["over BM25"] = _difference([m.values - m.bm25 for m in means])
        line["fused over both"] = _difference([m.fused - max(m.values, m.bm25, key=np.mean) for m in means])
        line["terms"] = float(np.mean([m.terms / before.terms for m, before in zip(means, untuned)]))
        first = first or [m.values for m in means]
        table.append(line)
    print_line(format_table(table))


def _difference(differences: Sequence[np.ndarray]) -> str:
    """Return the mean over collections of mean differences over queries, [queries] of each, and its interval."""

    def mean(*parts: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([part.mean(axis) for part in parts], axis=0)

    options = {"n_resamples": RESAMPLES, "batch": BATCH, "method": "percentile", "rng": 0}
    low, high = bootstrap(differences, mean, **options).confidence_interval
    return f"{np.mean([part.mean() for part in differences]):+.3f} ({low:+.3f} to {high:+.3f})"


def _generate(work_dir: Path, collection: Path, options: str) -> Path:
    """Return a file of training data made of a collection's documents, in a folder without validation data."""
    folder = work_dir / collection.name / f"data{options.replace(' ', '')}"
    file = folder / "training" / "training_data.json"
    if not file.exists():
        made = folder / file.name
        extractive = ["--generator", "extractive", *shlex.split(options)]
        _run("generate_training_data.py", folder, "--input-dir", collection, "--output-file", made, *extractive)
        file.parent.mkdir(exist_ok=True)
        made.rename(file)
    return file


def _tune(work_dir: Path, row: str, collection: Path, seed: int) -> None:
    training, generation = ROWS[row]
    name = _model_name(row, seed)
    model = work_dir / collection.name / name
    if not (model / HISTORY_NAME).exists():
        file = _generate(work_dir, collection, generation)
        options = ["--model-name", UNTUNED, "--seed", seed, *shlex.split(training), "--resume"]
        _run("train_splade.py", model, "--train-file", file, "--output-dir", model, *options)
    _measure(work_dir, collection, name)


def _model_name(row: str, seed: int) -> str:
    return f"{row.replace(' ', '_')}-{seed}"


def _run(script: str, folder: Path, *options: object) -> None:
    """Run a script in `folder`, which is made; what it prints goes to a file there."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with log.open("w") as out:
        command = [sys.executable, SCRIPTS / script, *map(str, options)]
        code = subprocess.run(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT).returncode
    if code:
        raise ValueError(f"{script} ended with exit code {code}; what it printed is in {log}")


@functools.cache
def _open(collection: Path) -> tuple[Collection, Run]:
    """Return a collection and BM25's run on it."""
    data = read_collection(collection)
    return data, bm25_run(data, BM25Index([document.full_text for document in data.documents]))


def _measure(work_dir: Path, collection: Path, model: str) -> Result:
    """Return the figures of a model, UNTUNED or one of the work folder; they are kept there."""
    file = work_dir / collection.name / f"{model}.npz"
    if not file.exists():
        data, lexical = _open(collection)
        source = model if model == UNTUNED else file.with_suffix("")
        run = run_model(data, SpladeEncoder.from_pretrained(source), METRIC)
        fused, bm25 = (values_by_query(data, hits, METRIC) for hits in (fuse_runs(run.hits, lexical), lexical))
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as unfinished, unfinished.open("wb") as out:
            np.savez(out, run.values, fused, bm25, run.doc_terms)
    with np.load(file) as arrays:
        return Result(*arrays.values())


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--collection", nargs="+", required=True, metavar="DIR", help="folders in the BEIR layout")
    add("--work-dir", required=True, metavar="DIR", help="where data, models and figures are kept")
    add(
        "--rows",
        nargs="+",
        default=list(ROWS),
        metavar="ROW",
        help=f"the first is what others are compared with; default: all of {'; '.join(ROWS)}",
    )
    add("--seeds", type=int, nargs="+", default=[42, 43, 44], help="seeds of the training")
    add("--workers", type=positive_int, default=1, help="trainings at a time")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
