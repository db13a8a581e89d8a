"""Fine-tune a SPLADE model on training examples.

    python train_splade.py --train-file training_data.json --output-dir ./fine_tuned_splade
    python train_splade.py --model-name splade-tiny --train-file training_data.json --learning-rate 2e-4 --batch-size 32
    python train_splade.py --train-file training_data.json --target-doc-terms 120 --target-query-terms 20
    python train_splade.py --train-file training_data.json --resume
    torchrun --nproc-per-node 4 train_splade.py --train-file training_data.json

    from train_splade import SpladeTrainer
    SpladeTrainer(model_name="splade-tiny", train_file="training_data.json").train()

Each query is trained against its own document, its hard negatives and all other documents of the batch, while a
regulariser keeps the vectors sparse. The output folder opens with SpladeEmbedder and with transformers'
AutoModelForMaskedLM; README.md and training_history.json in it tell how the training went.
"""

import argparse
import contextlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from utils.batches import collate, step_of, tokenised
from utils.console import Parser, bounded, positive_int, progress, quiet_libraries, run_script, say
from utils.device import resolve_device, uses_bfloat16
from utils.documents import pool_examples
from utils.encoder import SpladeEncoder
from utils.evaluation import evaluate_model
from utils.losses import RankingLoss
from utils.model_card import model_card
from utils.records import TrainingExample, check_writable, read_examples, write_json, write_text
from utils.sparsity import REGULARISERS, Sparsity

VAL_FILE = "validation_data.json"
METRIC = "nDCG@10"
STATE_NAME = "splade_training.json"  # written last: a checkpoint with it is whole
TOLERANCE = 0.1  # of a target number of terms
PATIENCE = 5  # steps in a row that something is wrong for before the training stops
EMPTY = 1.0  # active terms of a text, on average, below which vectors count as empty
FULL = 0.5  # share of the vocabulary, above which they count as not sparse at all


class SpladeTrainer:
    """Fine-tunes a SPLADE model, or any masked language model, into `output_dir`.

    A training that was interrupted has its last and its best epoch as model folders in output_dir/checkpoints.

    Args:
        model_name: what to start from: `splade-tiny`, a model folder or a hub id.
        output_dir: where the model folder goes, with training_history.json and a model card, README.md.
        train_file, val_file: examples (utils.records.TrainingExample). Without a validation file at the default
            place, here or beside the training file, the last epoch's weights are kept rather than the best epoch's.
        learning_rate: peak of AdamW's, after a linear warm-up over `warmup_ratio` of the steps, then linear to 0.
        batch_size: queries a step, and process; each brings its positive and its negatives.
        micro_batch_size: texts that pass through the model at a time, None for all of a step's. Less memory for more
            time, and the same gradient: all documents of the batch stay negatives (GradCache, Gao et al., arXiv
            2101.06983).
        loss: a sum of losses by weight, such as ["contrastive=0.5", "kl=0.5"]; see utils.losses.RankingLoss.
        temperature: what the loss `kl` divides the teacher's scores by.
        regulariser: flops or l1.
        lambda_d, lambda_q: its weights on documents and queries, reached over the first third of the steps.
        target_doc_terms, target_query_terms: mean number of active terms of a document and of a query to arrive at;
            the regulariser's weight is then steered, and lambda_d or lambda_q not used.
        max_length, query_max_length: limits in tokens.
        dropout: of hidden states, in place of the model's own; attention probabilities have none.
        best_by: what makes an epoch the best on the validation examples: `nDCG@10` in retrieval among all their
            documents, or the `loss`. With a target number of terms it also has to be there, within 10 %.
        early_stopping_patience: epochs without a better one after which to stop; None for never.
        resume: go on with a training that was interrupted, from its last whole epoch.
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
        micro_batch_size: int | None = None,
        loss: Sequence[str] = ("contrastive",),
        temperature: float = 1.0,
        regulariser: str = "flops",
        target_doc_terms: float | None = None,
        target_query_terms: float | None = None,
        best_by: str = METRIC,
        early_stopping_patience: int | None = None,
        resume: bool = False,
        seed: int = 42,
        device: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "resume")}
        quiet_libraries()
        for name in ("batch_size", "epochs", "max_length", "micro_batch_size", "early_stopping_patience"):
            if settings[name] is not None and settings[name] < 1:
                raise ValueError(f"{name} must be at least 1, not {settings[name]}")
        for name in ("learning_rate", "lambda_d", "lambda_q"):
            if settings[name] < 0:
                raise ValueError(f"{name} must not be negative, and is {settings[name]}")
        for name in ("target_doc_terms", "target_query_terms", "temperature"):
            if settings[name] is not None and not settings[name] > 0:
                raise ValueError(f"{name} must be above 0, and is {settings[name]}")
        if precision == "int8":
            raise ValueError("precision 'int8' is for encoding; train in auto, bfloat16 or float32")
        if best_by not in (METRIC, "loss"):
            raise ValueError(f"best_by '{best_by}' is unknown: use {METRIC} or loss")
        self.objective = RankingLoss(loss, temperature)
        Sparsity(0, 1, regulariser)  # an unknown one fails now
        self.settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()} | {"loss": list(loss)}
        self.output_dir = Path(output_dir)
        self.device = resolve_device(device)
        if self.device.type == "cuda" and "LOCAL_RANK" in os.environ:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if self.device.index is not None:
            raise ValueError(
                f"to train on {self.device}, set CUDA_VISIBLE_DEVICES={self.device.index} and --device cuda"
            )
        self.examples = self._read(train_file)
        val_path = _find_validation(val_file, train_file)
        self.validation = self._read(val_path) if val_path else []
        if early_stopping_patience and not self.validation:
            raise ValueError("early stopping needs a validation file")
        check_writable(self.output_dir, folder=True)
        self.checkpoint = self._find_checkpoint(resume)
        self.encoder = SpladeEncoder.from_pretrained(model_name, self.device, max_length, precision, threads)
        self.encoder.query_max_length = min(query_max_length, self.encoder.max_length)
        self.encoder.base_model = str(model_name)
        _set_dropout(self.encoder.model, dropout)
        self.history: list[dict[str, Any]] = []

    def train(self) -> list[dict[str, Any]]:
        """Train, keep the best epoch on the validation examples, and write the model folder.

        Returns:
            One record an epoch, as in training_history.json: epoch, loss, query_terms, doc_terms, lambda_q, lambda_d,
            seconds, and where there are validation examples val_loss, val_nDCG@10, val_query_terms, val_doc_terms.

        Raises:
            ValueError: the training went wrong: a loss that is no number, vectors all empty or all full.
        """
        settings = self.settings
        arguments = TrainingArguments(
            output_dir=str(self._checkpoints),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            per_device_eval_batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            warmup_steps=settings["warmup_ratio"],
            weight_decay=0.01,
            bf16=uses_bfloat16(self.device, settings["precision"]),
            use_cpu=self.device.type == "cpu",
            ddp_broadcast_buffers=False,
            ddp_backend="gloo" if self.device.type == "cpu" and "WORLD_SIZE" in os.environ else None,
            seed=settings["seed"],
            eval_strategy="epoch" if self.validation else "no",
            save_strategy="epoch",
            load_best_model_at_end=bool(self.validation),
            metric_for_best_model="score",
            greater_is_better=True,
            prediction_loss_only=True,
            logging_strategy="epoch",
            disable_tqdm=True,
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=self.device.type == "cuda",
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # several devices mean several processes, never DataParallel
        rows = tokenised(self.examples, self.encoder)
        self._report_cut()
        steps = -(-len(rows) // (settings["batch_size"] * arguments.world_size)) * settings["epochs"]
        trainer = _Trainer(
            model=self.encoder,
            args=arguments,
            train_dataset=rows,
            eval_dataset=tokenised(self.validation, self.encoder) if self.validation else None,
            data_collator=lambda rows: collate(rows, self.encoder, settings["micro_batch_size"]),
            objective=self.objective,
            sparsity={
                side: Sparsity(
                    settings[f"lambda_{side[0]}"], steps, settings["regulariser"], settings[f"target_{side}_terms"]
                )
                for side in ("query", "doc")
            },
            history=self.history,
            settings=settings,
            collection=pool_examples(self.validation),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_Story(trainer))
        if settings["early_stopping_patience"]:
            trainer.add_callback(EarlyStoppingCallback(settings["early_stopping_patience"]))
        trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        self.encoder.eval()
        self.encoder.training_notes = {
            **settings,
            "examples": len(self.examples),
            "best_epoch": self._best_epoch(trainer),
        }
        if arguments.should_save:
            self.encoder.save_pretrained(self.output_dir)
            write_json(self.output_dir / "training_history.json", {"settings": settings, "epochs": self.history})
            card = model_card(settings, self.history, self._best_epoch(trainer), len(self.examples))
            write_text(self.output_dir / "README.md", card)
            shutil.rmtree(self._checkpoints, ignore_errors=True)
        return self.history

    @property
    def _checkpoints(self) -> Path:
        return self.output_dir / "checkpoints"

    def _read(self, path: str | Path) -> list[TrainingExample]:
        """The examples with a query and a positive document."""
        examples = read_examples(path)
        usable = [e for e in examples if e.query.strip() and e.positive_document.strip()]
        if not usable:
            raise ValueError(f"{path}: every example has an empty query or positive document")
        if len(usable) < len(examples):
            say(f"{path}: skipped {len(examples) - len(usable)} examples with an empty query or positive document")
        taught = self.objective.teacher_names
        bare = sum(example.scores is None for example in usable)
        if taught and bare:
            raise ValueError(
                f"{path}: loss '{taught[0]}' learns from a teacher, and {bare:,} of {len(usable):,} examples "
                "have no field 'scores'"
            )
        return usable

    def _find_checkpoint(self, resume: bool) -> Path | None:
        """The last whole checkpoint of an interrupted training of the same settings, where one is to be resumed."""
        whole = [path.parent for path in self._checkpoints.glob(f"checkpoint-*/{STATE_NAME}")]
        if whole and not resume:
            raise ValueError(
                f"{self._checkpoints}: holds an interrupted training; go on with it by --resume, or remove this folder"
            )
        if not whole:
            if resume:
                say(f"{self._checkpoints}: nothing to resume; training from the beginning")
            return None
        last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]))
        before = json.loads((last / STATE_NAME).read_text(encoding="utf-8"))["settings"]
        same = json.loads(json.dumps(self.settings))
        for name in same.keys() - {"device", "threads", "output_dir"}:
            if before.get(name) != same[name]:
                raise ValueError(
                    f"{last}: was trained with {name} {before.get(name)}, not {same[name]}; resume with the same"
                )
        return last

    def _report_cut(self) -> None:
        """Say how many texts the length limits cut."""
        encoder = self.encoder
        documents = {text for example in self.examples for text in (example.positive_document, *example.negatives)}
        queries = {example.query for example in self.examples}
        for name, texts, limit in (
            ("documents", documents, encoder.max_length),
            ("queries", queries, encoder.query_max_length),
        ):
            cut = encoder.count_longer(sorted(texts), limit)
            if cut:
                say(f"{cut:,} of {len(texts):,} {name} are longer than {limit} tokens and are cut there")

    def _best_epoch(self, trainer: "_Trainer") -> int:
        best = trainer.state.best_global_step
        return round(best * len(self.history) / trainer.state.global_step) if best else len(self.history)


class _Trainer(Trainer):
    """transformers' Trainer around a SpladeEncoder: the loss, in as many passes as memory asks for; what makes vectors
    sparse; and a watch over both."""

    def __init__(self, *args: Any, objective, sparsity, history, settings, collection, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.objective, self.sparsity, self.history = objective, sparsity, history
        self.settings, self.collection = settings, collection
        self.last = (0.0, 0.0, 0.0)  # the last step's loss, and active terms of its queries and documents
        self.trouble = {"empty": 0, "full": 0}  # steps in a row
        self.first_terms: float | None = None
        self.model_accepts_loss_kwargs = False

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        if len(inputs["texts"]) == 1:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs)
            self._backward(loss)
        else:
            loss = self._cached_step(model, inputs)
        self._watch()
        for side, terms in zip(("query", "doc"), self.last[1:]):
            self.sparsity[side].observe(terms)
        bias = self.model.model.get_output_embeddings().bias
        if bias is not None:
            with torch.no_grad():
                bias += max(part.lift for part in self.sparsity.values())
        return loss.detach()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = self._loss(torch.cat([model(**part) for part in inputs["texts"]]), inputs, model.training)
        return (loss, {}) if return_outputs else loss

    def _loss(self, weights: torch.Tensor, inputs: dict[str, Any], regularised: bool) -> torch.Tensor:
        """The loss of a batch's weights; without the regularisers it is comparable between epochs."""
        step = step_of(weights, inputs)
        loss = self.objective(step)
        if regularised:
            loss = loss + self.sparsity["query"].loss(step.queries) + self.sparsity["doc"].loss(step.documents)
        active = ((side.detach() > 0).sum(1).float().mean().item() for side in (step.queries, step.documents))
        self.last = (loss.item(), *active)
        return loss

    def _backward(self, loss: torch.Tensor) -> None:
        """Each process has the loss of all, and the gradient of its own texts; processes average their gradients."""
        self.accelerator.backward(loss * self.args.world_size)

    def _cached_step(self, model, inputs) -> torch.Tensor:
        """Forward and backward of a batch in parts: weights without gradients, the loss's gradient for them, then each
        part once more, with the same dropout, to pass that gradient on (GradCache, arXiv 2101.06983)."""
        states, weights = [], []
        for part in inputs["texts"]:
            states.append(_random_state(self.args.device))
            with torch.no_grad(), self.compute_loss_context_manager():
                weights.append(model(**part))
        gathered = torch.cat(weights).requires_grad_()
        with self.compute_loss_context_manager():
            loss = self._loss(gathered, inputs, regularised=True)
        self._backward(loss)
        after = _random_state(self.args.device)
        gradients = gathered.grad.split([len(part) for part in weights])
        for number, (part, state, gradient) in enumerate(zip(inputs["texts"], states, gradients), 1):
            _set_random_state(state, self.args.device)
            # Processes may have different numbers of parts: they meet once, at the last.
            meets = number == len(states) or self.args.world_size == 1
            with contextlib.nullcontext() if meets else model.no_sync():
                with self.compute_loss_context_manager():
                    again = model(**part)
                again.backward(gradient)
        _set_random_state(after, self.args.device)
        return loss

    def _watch(self) -> None:
        """Raises ValueError where going on would be a waste: see SpladeTrainer.train."""
        loss, query_terms, doc_terms = self.last
        step, vocabulary = self.state.global_step + 1, self.model.model.config.vocab_size
        if not torch.tensor(loss).isfinite():
            raise ValueError(
                f"step {step}: the loss is {loss}; lower --learning-rate (now {self.settings['learning_rate']:g}), or "
                "try --precision float32"
            )
        self.first_terms = self.first_terms or doc_terms
        # A plain masked language model begins full: it has the lambdas' warm-up to become sparse.
        begins = step <= self.state.max_steps / 3 and doc_terms <= 1.1 * self.first_terms
        now = {"empty": min(query_terms, doc_terms) < EMPTY, "full": doc_terms > FULL * vocabulary and not begins}
        advice = {
            "empty": f"nearly all vectors are empty ({query_terms:.1f} terms a query, {doc_terms:.1f} a document); "
            "lower --lambda-d, --lambda-q or --learning-rate, or say --target-doc-terms and --target-query-terms",
            "full": f"documents have {doc_terms:.0f} active terms of {vocabulary}; raise --lambda-d and --lambda-q, or "
            "say --target-doc-terms and --target-query-terms",
        }
        for kind, seen in now.items():
            self.trouble[kind] = self.trouble[kind] + 1 if seen else 0
            if self.trouble[kind] >= PATIENCE:
                raise ValueError(f"step {step}: {advice[kind]}")

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        output = super().evaluation_loop(*args, **kwargs)
        self.model.eval()
        found = evaluate_model("validation", self.model, self.collection, [METRIC])
        output.metrics.update({f"eval_{name}": found[name] for name in (METRIC, "query_terms", "doc_terms")})
        by_loss = self.settings["best_by"] == "loss"
        score = -output.metrics["eval_loss"] if by_loss else found[METRIC]
        for side in ("query", "doc"):  # an epoch that is not as sparse as asked cannot be the best
            target = self.settings[f"target_{side}_terms"]
            if target:
                score -= 10 * max(0.0, abs(found[f"{side}_terms"] / target - 1) - TOLERANCE)
        output.metrics["eval_score"] = score
        return output

    def _save(self, output_dir=None, state_dict=None):
        self.model.save_pretrained(output_dir)

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        sparsity = {side: part.state() for side, part in self.sparsity.items()}
        state = {
            "settings": self.settings,
            "history": self.history,
            "sparsity": sparsity,
            "first_terms": self.first_terms,
        }
        write_json(folder / STATE_NAME, state)
        kept = {str(folder), self.state.best_model_checkpoint}
        for other in folder.parent.glob("checkpoint-*"):  # only now that there is a whole one after it
            if str(other) not in kept:
                shutil.rmtree(other)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        state = json.loads(Path(resume_from_checkpoint, STATE_NAME).read_text(encoding="utf-8"))
        self.history[:] = state["history"]
        self.first_terms = state["first_terms"]
        for side, part in self.sparsity.items():
            part.restore(state["sparsity"][side])
        self._load_weights(resume_from_checkpoint)

    def _load_best_model(self):
        self._load_weights(self.state.best_model_checkpoint)

    def _load_weights(self, folder: str) -> None:
        self.model.load_state_dict(SpladeEncoder.from_pretrained(folder, self.model.device).state_dict())


class _Story(TrainerCallback):
    """Progress bar with the running loss and active terms, one line an epoch, and the history's records."""

    def __init__(self, trainer: _Trainer) -> None:
        self.history, self.trainer = trainer.history, trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress(total=state.max_steps, initial=state.global_step, desc="training", unit="steps")

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
            names = ("loss", METRIC, "query_terms", "doc_terms")
            self.history[-1] |= {f"val_{name}": logs[f"eval_{name}"] for name in names}
        elif "loss" in logs:
            query_terms, doc_terms, steps = self.sums
            self.history.append(
                {
                    "epoch": round(state.epoch),
                    "loss": logs["loss"],
                    "query_terms": query_terms / steps,
                    "doc_terms": doc_terms / steps,
                    "lambda_q": self.trainer.sparsity["query"].weight_now,
                    "lambda_d": self.trainer.sparsity["doc"].weight_now,
                    "seconds": round(time.perf_counter() - self.started, 1),
                }
            )
        if logs.keys() & {"eval_loss"} or ("loss" in logs and args.eval_strategy == "no"):
            say("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in self.history[-1].items()))

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """The generators that dropout draws from."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _set_random_state(state: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state(state[1], device)


def _set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Dropout of hidden states; that of attention probabilities is off, since fused attention cannot have it."""
    for parent in model.modules():
        is_attention = hasattr(parent, "num_attention_heads") or hasattr(parent, "n_heads")
        for part in parent.children():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0 if is_attention else probability


def _find_validation(val_file: str | None, train_file: str) -> str | Path | None:
    """The validation file; the default name is looked for here and beside the training file, and may be missing."""
    if val_file != VAL_FILE or Path(val_file).exists():
        return val_file
    beside = Path(train_file).with_name(VAL_FILE)
    if not beside.exists():
        say(f"no {VAL_FILE} here or beside {train_file}: training without validation")
    return beside if beside.exists() else None


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
    add("--micro-batch-size", type=positive_int, default=None, metavar="TEXTS",
        help="texts in the model at a time, for batches that do not fit; default: all")  # fmt: skip
    add("--epochs", type=positive_int, default=3, help="passes over the training examples")
    add("--loss", nargs="+", default=["contrastive"], metavar="NAME[=WEIGHT]",
        help="sum of contrastive, margin and, for examples with a teacher's scores, margin-mse, kl")  # fmt: skip
    add("--temperature", type=float, default=1.0, help="what kl divides the teacher's scores by")
    add("--regulariser", choices=list(REGULARISERS), default="flops", help="what keeps vectors sparse")
    add("--lambda-d", type=bounded(float, 0), default=1e-4, help="regularisation of documents")
    add("--lambda-q", type=bounded(float, 0), default=1e-4, help="regularisation of queries")
    add("--target-doc-terms", type=float, default=None, metavar="N", help="active terms a document to arrive at")
    add("--target-query-terms", type=float, default=None, metavar="N", help="active terms a query to arrive at")
    add("--max-length", type=positive_int, default=512, help="tokens a document at most")
    add("--query-max-length", type=positive_int, default=64, help="tokens a query at most")
    add("--warmup-ratio", type=bounded(float, 0, 1), default=0.1, help="share of the steps that warm up")
    add("--dropout", type=bounded(float, 0, 0.9), default=0.1, help="dropout of hidden states in training")
    add("--best-by", choices=[METRIC, "loss"], default=METRIC, help="what the best epoch has on the validation file")
    add(
        "--early-stopping-patience",
        type=positive_int,
        default=None,
        metavar="EPOCHS",
        help="stop after so many without a better one",
    )
    add("--resume", action="store_true", help="go on with an interrupted training")
    add("--seed", type=int, default=42, help="seed of the order of examples and of dropout")
    parser.add_device_arguments("auto", "bfloat16", "float32")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
