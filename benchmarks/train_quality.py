"""Measure time and result of a whole training: this toolkit against sentence-transformers' SparseEncoderTrainer.

    .venv/bin/python -m benchmarks.train_quality --train-file training_data.json --test-file COLLECTION --epochs 1

Both start from the same model and train on the same pairs with the same epochs, batch size, learning rate and lambdas.
The peer uses SpladeLoss over SparseMultipleNegativesRankingLoss, with its defaults for all else; it runs a second time
in bfloat16 where the device is fast at it, which this toolkit uses by default. Seconds include saving the model.
Both models are then evaluated the same way, on a collection in the BEIR layout. The peer needs: pip install datasets
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from sentence_transformers import SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss

from benchmarks.common import PEER, open_peer, report
from train_splade import SpladeTrainer
from utils.arguments import ScriptParser, positive_int
from utils.console import quiet_libraries, run_script
from utils.device import bfloat16_is_fast, resolve_device, use_threads
from utils.evaluation.reading import read_collection
from utils.evaluation.systems import evaluate_model
from utils.models import resolve_model
from utils.records import read_examples, write_examples
from utils.splade.encoder import SpladeEncoder

METRICS = ("nDCG@10", "R@100")
COLUMNS = (*METRICS, "doc_terms", "query_terms")


def main(args: argparse.Namespace) -> None:
    quiet_libraries()
    disable_progress_bars()
    use_threads(args.threads)
    collection = read_collection(args.test_file)
    contestants: dict[str, Callable[[Path], None]] = {"ours": lambda folder: train_ours(args, folder)}
    contestants[f"{PEER}, float32"] = lambda folder: train_peer(args, folder, False)
    if bfloat16_is_fast(resolve_device()):
        contestants[f"{PEER}, bfloat16"] = lambda folder: train_peer(args, folder, True)
    if unknown := set(args.only or ()) - contestants.keys():
        raise ValueError(f"--only {min(unknown)}: the contestants here are {'; '.join(contestants)}")
    rows = []
    with tempfile.TemporaryDirectory() as parent:
        examples = read_examples(args.train_file)[: args.examples]
        args.pairs = len(examples)
        args.train_file = Path(parent, "training_data.json")
        write_examples(args.train_file, examples)
        for name in args.only or contestants:
            folder = Path(parent, name)
            started = time.perf_counter()
            contestants[name](folder)
            seconds = time.perf_counter() - started
            model = SpladeEncoder.from_pretrained(folder, precision="float32")
            metrics = evaluate_model(name, model, collection, METRICS).row()
            rows.append({"trainer": name, "seconds": seconds} | {column: metrics[column] for column in COLUMNS})
    ours = next((row["seconds"] for row in rows if row["trainer"] == "ours"), None)
    for row in rows if ours else ():
        row["times ours"] = row["seconds"] / ours
    names = ("pairs", "epochs", "batch_size", "learning_rate", "regularization", "seed")
    args.rounds = 1
    report(args, {name: getattr(args, name) for name in names}, rows)


def train_ours(args: argparse.Namespace, folder: Path) -> None:
    SpladeTrainer(
        model_name=args.model_name,
        output_dir=folder,
        train_file=args.train_file,
        val_file=None,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        epochs=args.epochs,
        lambda_d=args.regularization,
        lambda_q=args.regularization,
        seed=args.seed,
        threads=args.threads,
    ).train()


def train_peer(args: argparse.Namespace, folder: Path, bf16: bool) -> None:
    torch.manual_seed(args.seed)
    model = open_peer(str(resolve_model(args.model_name)), str(resolve_device()))
    pairs = [(e.query, e.positive_document) for e in read_examples(args.train_file)]
    arguments = SparseEncoderTrainingArguments(
        output_dir=folder / "checkpoints",
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=0.1,
        bf16=bf16,
        use_cpu=resolve_device().type == "cpu",
        seed=args.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), args.regularization, args.regularization)
    data = Dataset.from_dict({"anchor": [query for query, _ in pairs], "positive": [text for _, text in pairs]})
    SparseEncoderTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    model[0].auto_model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--train-file", required=True, help="training examples, of which query and positive are used")
    add("--test-file", required=True, metavar="PATH", help="a collection in the BEIR layout")
    add("--examples", type=positive_int, default=None, help="number of examples, from the first on; default: all")
    add("--model-name", default="splade-tiny", help="model that both start from")
    add("--epochs", type=positive_int, default=1, help="passes over the pairs")
    add("--batch-size", type=positive_int, default=32, help="pairs per step")
    add("--learning-rate", type=float, default=1e-4, help="peak learning rate")
    add("--regularization", type=float, default=1e-3, help="lambda_d and lambda_q")
    add("--seed", type=int, default=42, help="seed of order and dropout")
    add("--only", nargs="+", default=None, help="names of the contestants to run; default: all")
    add("--threads", type=positive_int, default=None, help="processor threads")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
