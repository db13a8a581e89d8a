"""Fine-tune a SPLADE model on training examples.

    python train_splade.py --train-file training_data.json --output-dir ./fine_tuned_splade
    python train_splade.py --model-name splade-tiny --train-file training_data.json --learning-rate 2e-4 --batch-size 32

    from train_splade import SpladeTrainer
    SpladeTrainer(model_name="splade-tiny", train_file="training_data.json").train()

Each query is trained against its own document, its hard negatives and all other documents of the batch, while FLOPS
regularisation keeps the vectors sparse. The output folder opens with SpladeEmbedder and with transformers'
AutoModelForMaskedLM; training_history.json in it tells how the training went.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from utils.console import Parser, bounded, positive_int, progress, quiet_libraries, run_script, say
from utils.device import resolve_device, uses_bfloat16
from utils.encoder import SpladeEncoder
from utils.losses import contrastive_loss, flops_loss
from utils.records import TrainingExample, check_writable, read_examples, write_json

VAL_FILE = "validation_data.json"


class SpladeTrainer:
    """Fine-tunes a SPLADE model, or any masked language model, into `output_dir`.

    An interrupted training leaves the best epoch so far as a model folder in output_dir/checkpoints.

    Args:
        model_name: what to start from: `splade-tiny`, a model folder or a hub id.
        output_dir: where the model folder and training_history.json go.
        train_file, val_file: examples (utils.records.TrainingExample). Without a validation file at the default
            place, here or beside the training file, the last epoch's weights are kept rather than the best epoch's.
        learning_rate: peak of AdamW's, after a linear warm-up over `warmup_ratio` of the steps, then linear to 0.
        batch_size: queries a step; each brings its positive and its negatives.
        lambda_d, lambda_q: weights of the FLOPS regulariser on documents and queries.
        max_length, query_max_length: limits in tokens.
        dropout: of hidden states, in place of the model's own; attention probabilities have none.
        device: None for the best one here, or cuda, mps, cpu.
        precision: bfloat16 or float32; auto takes bfloat16 where the device is fast at it.
        threads: of the processor; None for OMP_NUM_THREADS, or one a core.

    Raises:
        ValueError, OSError: a setting, file or model that cannot work; all are checked before training starts.
    """

    def __init__(
        self,
        model_name: str = "prithivida/Splade_PP_en_v1",
        output_dir: str = "./fine_tuned_splade",
        train_file: str = "training_data.json",
        val_file: str | None = VAL_FILE,
        learning_rate: float = 5e-5,
        batch_size: int = 8,
        epochs: int = 3,
        lambda_d: float = 1e-4,
        lambda_q: float = 1e-4,
        max_length: int = 512,
        query_max_length: int = 64,
        warmup_ratio: float = 0.1,
        dropout: float = 0.1,
        seed: int = 42,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name != "self"}
        quiet_libraries()
        for name, value in (("batch_size", batch_size), ("epochs", epochs), ("max_length", max_length)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for name, value in (("learning_rate", learning_rate), ("lambda_d", lambda_d), ("lambda_q", lambda_q)):
            if value < 0:
                raise ValueError(f"{name} must not be negative, and is {value}")
        if precision == "int8":
            raise ValueError("precision 'int8' is for encoding; train in auto, bfloat16 or float32")
        self.settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
        self.output_dir = Path(output_dir)
        self.device = resolve_device(device)
        if self.device.index is not None:
            raise ValueError(
                f"to train on {self.device}, set CUDA_VISIBLE_DEVICES={self.device.index} and --device cuda"
            )
        self.examples = _usable(read_examples(train_file), train_file)
        val_path = _find_validation(val_file, train_file)
        self.validation = _usable(read_examples(val_path), val_path) if val_path else []
        check_writable(self.output_dir, folder=True)
        self.encoder = SpladeEncoder.from_pretrained(model_name, self.device, max_length, precision, threads)
        self.encoder.query_max_length = min(query_max_length, self.encoder.max_length)
        self.encoder.base_model = str(model_name)
        _set_dropout(self.encoder.model, dropout)
        self.history: list[dict[str, Any]] = []

    def train(self) -> list[dict[str, Any]]:
        """Train, keep the epoch with the lowest validation loss, and write the model folder.

        Returns:
            One record an epoch, as in training_history.json: epoch, loss, query_terms, doc_terms, seconds, val_loss.
        """
        settings, checkpoints = self.settings, self.output_dir / "checkpoints"
        arguments = TrainingArguments(
            output_dir=str(checkpoints),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            per_device_eval_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            warmup_steps=settings["warmup_ratio"],
            weight_decay=0.01,
            bf16=uses_bfloat16(self.device, settings["precision"]),
            use_cpu=self.device.type == "cpu",
            seed=settings["seed"],
            eval_strategy="epoch" if self.validation else "no",
            save_strategy="epoch" if self.validation else "no",
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=bool(self.validation),
            metric_for_best_model="loss",
            prediction_loss_only=True,
            logging_strategy="epoch",
            disable_tqdm=True,
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=self.device.type == "cuda",
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # several devices mean several processes, never DataParallel
        trainer = _ContrastiveTrainer(
            model=self.encoder,
            args=arguments,
            train_dataset=tokenised(self.examples, self.encoder),
            eval_dataset=tokenised(self.validation, self.encoder) if self.validation else None,
            data_collator=lambda rows: collate(rows, self.encoder),
            lambdas=(settings["lambda_q"], settings["lambda_d"]),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Story(self.history, trainer))
        trainer.train()
        shutil.rmtree(checkpoints, ignore_errors=True)
        self.encoder.eval()
        self.encoder.training_notes = {
            **settings,
            "examples": len(self.examples),
            "best_epoch": self._best_epoch(),
        }
        self.encoder.save_pretrained(self.output_dir)
        write_json(self.output_dir / "training_history.json", {"settings": settings, "epochs": self.history})
        return self.history

    def _best_epoch(self) -> int:
        if not self.validation:
            return len(self.history)
        return min(self.history, key=lambda record: record["val_loss"])["epoch"]


class _ContrastiveTrainer(Trainer):
    """transformers' Trainer around a SpladeEncoder; its loss is contrastive in training plus the regularisers, and
    contrastive alone in validation, where lower means better ranking."""

    def __init__(self, *args: Any, lambdas: tuple[float, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lambda_q, self.lambda_d = lambdas
        self.last = (0.0, 0.0, 0.0)  # the last step's loss, and active terms of its queries and documents
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        queries, documents = encode_batch(model, inputs)
        loss = contrastive_loss(queries, documents, inputs["false_negatives"])
        if model.training:
            loss = loss + self.lambda_q * flops_loss(queries) + self.lambda_d * flops_loss(documents)
        active = ((weights.detach() > 0).sum(1).float().mean().item() for weights in (queries, documents))
        self.last = (loss.item(), *active)
        return (loss, {}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def _save(self, output_dir=None, state_dict=None):
        self.model.save_pretrained(output_dir)

    def _load_best_model(self):
        best = SpladeEncoder.from_pretrained(self.state.best_model_checkpoint, self.model.device)
        self.model.load_state_dict(best.state_dict())


class _Story(TrainerCallback):
    """Progress bar with the running loss and active terms, one line an epoch, and the history's records."""

    def __init__(self, history: list[dict[str, Any]], trainer: _ContrastiveTrainer) -> None:
        self.history, self.trainer = history, trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress(total=state.max_steps, desc="training", unit="steps")

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.started, self.sums = time.perf_counter(), [0.0, 0.0, 0]

    def on_step_end(self, args, state, control, **kwargs):
        loss, query_terms, doc_terms = self.trainer.last
        self.sums = [self.sums[0] + query_terms, self.sums[1] + doc_terms, self.sums[2] + 1]
        self.bar.set_postfix_str(
            f"loss {loss:.3f}, query terms {query_terms:.0f}, doc terms {doc_terms:.0f}", refresh=False
        )
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "eval_loss" in logs:
            self.history[-1]["val_loss"] = logs["eval_loss"]
        elif "loss" in logs:
            query_terms, doc_terms, steps = self.sums
            self.history.append(
                {
                    "epoch": round(state.epoch),
                    "loss": logs["loss"],
                    "query_terms": query_terms / steps,
                    "doc_terms": doc_terms / steps,
                    "seconds": round(time.perf_counter() - self.started, 1),
                }
            )
        if logs.keys() & {"eval_loss"} or ("loss" in logs and args.eval_strategy == "no"):
            say("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.history[-1].items()))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def encode_batch(encoder: torch.nn.Module, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of the queries, [B, V], and documents, [D, V], of a batch that `collate` made."""
    weights = encoder(**batch["texts"])[batch["places"]]
    return weights.tensor_split([len(batch["false_negatives"])])


def _set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Dropout of hidden states; that of attention probabilities is off, since fused attention cannot have it."""
    for parent in model.modules():
        is_attention = hasattr(parent, "num_attention_heads") or hasattr(parent, "n_heads")
        for part in parent.children():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0 if is_attention else probability


def _usable(examples: Sequence[TrainingExample], path: str | Path) -> list[TrainingExample]:
    """The examples with a query and a positive document; empty negatives are dropped from the rest."""
    usable = [e for e in examples if e.query.strip() and e.positive_document.strip()]
    if not usable:
        raise ValueError(f"{path}: every example has an empty query or positive document")
    if len(usable) < len(examples):
        say(f"{path}: skipped {len(examples) - len(usable)} examples with an empty query or positive document")
    return usable


def _find_validation(val_file: str | None, train_file: str) -> str | Path | None:
    """The validation file; the default name is looked for here and beside the training file, and may be missing."""
    if val_file != VAL_FILE or Path(val_file).exists():
        return val_file
    beside = Path(train_file).with_name(VAL_FILE)
    if not beside.exists():
        say(f"no {VAL_FILE} here or beside {train_file}: training without validation")
    return beside if beside.exists() else None


def tokenised(examples: Sequence[TrainingExample], encoder: SpladeEncoder) -> list[dict[str, Any]]:
    """One row an example: token ids of query and documents (positive first), and a key for each document."""
    negatives = [[text for text in example.negatives if text.strip()] for example in examples]
    queries = encoder.tokenize([example.query for example in examples], encoder.query_max_length)
    texts = [text for e, others in zip(examples, negatives) for text in (e.positive_document, *others)]
    tokens = iter(encoder.tokenize(texts))
    rows = []
    for example, others, query in zip(examples, negatives, queries):
        documents = [next(tokens) for _ in range(1 + len(others))]
        if query and documents[0]:
            key = example.positive_id or example.positive_document
            rows.append({"query": query, "documents": documents, "keys": [key, *others]})
    return rows


def collate(rows: list[dict[str, Any]], encoder: SpladeEncoder) -> dict[str, Any]:
    """All texts of a step: B queries, their positives, then all negatives.

    Returns:
        texts, places: see `SpladeEncoder.group_by_length`; queries come first, then documents.
        false_negatives: [B, D], True for documents that are another copy of the query's positive.
    """
    documents = [row["documents"][0] for row in rows]
    keys = [row["keys"][0] for row in rows]
    for row in rows:
        for tokens, key in zip(row["documents"][1:], row["keys"][1:]):
            if tokens:
                documents.append(tokens)
                keys.append(key)
    same = [[i != j and row["keys"][0] == key for j, key in enumerate(keys)] for i, row in enumerate(rows)]
    texts, places = encoder.group_by_length([row["query"] for row in rows] + documents)
    return {"texts": texts, "places": places, "false_negatives": torch.tensor(same)}


def main(args: argparse.Namespace) -> None:
    options = {k: v for k, v in vars(args).items() if k != "debug"}
    trainer = SpladeTrainer(**options)
    say(f"{len(trainer.examples):,} examples, {len(trainer.validation):,} for validation, on {trainer.device}")
    trainer.train()
    say(f"model -> {args.output_dir}")


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model-name", default="prithivida/Splade_PP_en_v1", help="splade-tiny, a model folder or a hub id")
    add("--output-dir", default="./fine_tuned_splade", help="model folder to write")
    add("--train-file", default="training_data.json", help="training examples, .json or .jsonl")
    add("--val-file", default=VAL_FILE, help="validation examples; by default also looked for beside the train file")
    add("--learning-rate", type=bounded(float, 0), default=5e-5, help="peak learning rate")
    add("--batch-size", type=positive_int, default=8, help="queries a step")
    add("--epochs", type=positive_int, default=3, help="passes over the training examples")
    add("--lambda-d", type=bounded(float, 0), default=1e-4, help="FLOPS regularisation of documents")
    add("--lambda-q", type=bounded(float, 0), default=1e-4, help="FLOPS regularisation of queries")
    add("--max-length", type=positive_int, default=512, help="tokens a document at most")
    add("--query-max-length", type=positive_int, default=64, help="tokens a query at most")
    add("--warmup-ratio", type=bounded(float, 0, 1), default=0.1, help="share of the steps that warm up")
    add("--dropout", type=bounded(float, 0, 0.9), default=0.1, help="dropout of hidden states in training")
    add("--seed", type=int, default=42, help="seed of the order of examples and of dropout")
    parser.add_device_arguments("auto", "bfloat16", "float32")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
