"""transformers' Trainer around a SpladeEncoder: what a step does, what a checkpoint holds, what is told of both."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from utils.console import print_line, progress_bar
from utils.evaluation.collection import Collection
from utils.evaluation.metrics import evaluate_model
from utils.files import write_json
from utils.splade.encoder import SpladeEncoder
from utils.training.batches import StepBatchSampler, collate, gather_step
from utils.training.guards import TrainingGuard
from utils.training.lora import merge_adapters, restore_adapters
from utils.training.losses import RankingLoss
from utils.training.sparsity import SparsityController, bias_shift

VALIDATION_METRIC = "nDCG@10"
SIDES = ("query", "doc")
STATE_NAME = "splade_training.json"  # written last: a checkpoint with it is whole
ADAPTERS_NAME = "adapters.safetensors"  # beside a checkpoint's merged model
IDF_RATE_FACTOR = 20  # learning rate of query weights over the model's
TARGET_TOLERANCE = 0.1  # of a target number of terms


class EncoderTrainer(Trainer):
    """Trains a SpladeEncoder on tokenized examples: the loss, in as many passes as memory asks for; what makes vectors
    sparse; and a watch over both.

    Args:
        model: what is trained.
        arguments: transformers' settings.
        batches: which rows make each step.
        rows, validation_rows: `utils.training.batches.tokenize_examples` examples.
        collection: what to retrieve from after each epoch, with `validation_rows`.
        objective, sparsity, guard: the loss; the regularization of queries and of documents; the watch.
        settings: SpladeTrainer's, by name; stored with each checkpoint.
        refresh: called before each epoch but the first.

    Attributes:
        history: one record an epoch, see SpladeTrainer.train.
    """

    def __init__(
        self,
        model: SpladeEncoder,
        arguments: TrainingArguments,
        batches: StepBatchSampler,
        rows: list[dict[str, Any]],
        validation_rows: list[dict[str, Any]],
        collection: Collection,
        objective: RankingLoss,
        sparsity: dict[str, SparsityController],
        guard: TrainingGuard,
        settings: dict[str, Any],
        refresh: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=rows,
            eval_dataset=validation_rows or None,
            data_collator=lambda part: collate(part, model, self.micro_batch),
        )
        self.batches, self.collection, self.settings = batches, collection, settings
        self.objective, self.sparsity, self.guard = objective, sparsity, guard
        self.refresh = refresh
        self.micro_batch: int | None = settings["micro_batch_size"]
        self.history: list[dict[str, Any]] = []
        self.last = (0.0, 0.0, 0.0)  # the last step's loss, and active terms of its queries and documents
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.add_callback(ProgressCallback(self))

    @property
    def _adapted(self) -> bool:
        return self.settings["lora_rank"] is not None

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept, counted from 1."""
        best = self.state.best_global_step
        return best // len(self.batches) if best else len(self.history)

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        weights = self.model.query_weights
        if weights is not None:  # a single number a term, which has a long way to go
            for group in optimizer.param_groups:
                group["params"] = [part for part in group["params"] if part is not weights]
            rate = IDF_RATE_FACTOR * self.args.learning_rate
            optimizer.add_param_group({"params": [weights], "lr": rate, "weight_decay": 0.0})
        return optimizer

    def get_train_dataloader(self) -> DataLoader:
        return _StepLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=lambda rows: {"rows": rows})

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        loss = self._step(model, inputs["rows"])
        self.guard.check(self.state.global_step + 1, *self.last)
        for side, terms in zip(SIDES, self.last[1:]):
            self.sparsity[side].observe(terms)
        shift = bias_shift(self.sparsity["query"], self.sparsity["doc"])
        bias = self.model.model.get_output_embeddings().bias
        if shift and bias is not None:
            with torch.no_grad():
                bias += shift
        return loss.detach()

    def _step(self, model, rows: list[dict[str, Any]]) -> torch.Tensor:
        """Forward and backward; with fewer texts at a time where they do not fit the memory."""
        while True:
            inputs = self._prepare_inputs(collate(rows, self.model, self.micro_batch))
            try:
                return (self._whole_step if len(inputs["texts"]) == 1 else self._cached_step)(model, inputs)
            except torch.OutOfMemoryError:
                # Other processes wait for this one's part of the step: it cannot begin again.
                if self.micro_batch == 1 or self.args.world_size > 1:
                    raise
            self.micro_batch = -(-min(self.micro_batch or len(inputs["places"]), len(inputs["places"])) // 2)
            print_line(f"out of memory: {self.micro_batch} texts in the model at a time from here on")
            self.model.zero_grad()

    def _whole_step(self, model, inputs) -> torch.Tensor:
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        self._backward(loss)
        return loss

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
            loss = self._loss(gathered, inputs, regularized=True)
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

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = self._loss(torch.cat([model(**part) for part in inputs["texts"]]), inputs, model.training)
        return (loss, {}) if return_outputs else loss

    def _loss(self, weights: torch.Tensor, inputs: dict[str, Any], regularized: bool) -> torch.Tensor:
        """The loss of a batch's weights; without the regularizers it is comparable between epochs."""
        step = gather_step(weights, inputs)
        loss = self.objective(step)
        if regularized:
            loss = loss + self.sparsity["query"].loss(step.queries) + self.sparsity["doc"].loss(step.documents)
        active = ((side.detach() > 0).sum(1).float().mean().item() for side in (step.queries, step.documents))
        self.last = (loss.item(), *active)
        return loss

    def _backward(self, loss: torch.Tensor) -> None:
        """Each process has the loss of all, and the gradient of its own texts; processes average their gradients."""
        self.accelerator.backward(loss * self.args.world_size)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        output = super().evaluation_loop(*args, **kwargs)
        self.model.eval()
        found = evaluate_model("validation", self.model, self.collection, [VALIDATION_METRIC])
        output.metrics.update({f"eval_{name}": found[name] for name in (VALIDATION_METRIC, "query_terms", "doc_terms")})
        by_loss = self.settings["best_by"] == "loss"
        score = -output.metrics["eval_loss"] if by_loss else found[VALIDATION_METRIC]
        for side in SIDES:  # an epoch that is not as sparse as asked cannot be the best
            target = self.settings[f"target_{side}_terms"]
            if target:
                score -= 10 * max(0.0, abs(found[f"{side}_terms"] / target - 1) - TARGET_TOLERANCE)
        output.metrics["eval_score"] = score
        return output

    def log(self, logs, start_time=None):
        if "grad_norm" in logs:  # a step's
            logs |= {"query_terms": self.last[1], "doc_terms": self.last[2]}
            logs |= {f"lambda_{side[0]}": self.sparsity[side].current_lambda for side in SIDES}
        super().log(logs, start_time)

    def _save(self, output_dir=None, state_dict=None):
        adapted = self._adapted and merge_adapters(self.model.model)
        self.model.save_pretrained(output_dir)
        if adapted:
            restore_adapters(self.model.model, adapted)
            trained = {name: part for name, part in self.model.named_parameters() if part.requires_grad}
            save_file(trained, Path(output_dir, ADAPTERS_NAME))

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        state = {
            "settings": self.settings,
            "history": self.history,
            "sparsity": {side: part.state_dict() for side, part in self.sparsity.items()},
            "guard": self.guard.state_dict(),
        }
        write_json(folder / STATE_NAME, state)
        kept = {str(folder), self.state.best_model_checkpoint}
        for other in folder.parent.glob("checkpoint-*"):  # only now that there is a whole one after it
            if str(other) not in kept:
                shutil.rmtree(other)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        state = json.loads(Path(resume_from_checkpoint, STATE_NAME).read_text(encoding="utf-8"))
        self.history[:] = state["history"]
        self.guard.load_state_dict(state["guard"])
        for side, part in self.sparsity.items():
            part.load_state_dict(state["sparsity"][side])
        self._load_weights(resume_from_checkpoint)

    def _load_best_model(self):
        self._load_weights(self.state.best_model_checkpoint)

    def _load_weights(self, folder: str) -> None:
        if self._adapted:
            self.model.load_state_dict(load_file(Path(folder, ADAPTERS_NAME)), strict=False)
        else:
            self.model.load_state_dict(SpladeEncoder.from_pretrained(folder, self.model.device).state_dict())


class _StepLoader(DataLoader):
    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)


class ProgressCallback(TrainerCallback):
    """Progress bar with the running loss and active terms, one line an epoch, and the history's records."""

    def __init__(self, trainer: EncoderTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress_bar(total=state.max_steps, initial=state.global_step, desc="training", unit="steps")

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.started, self.steps = time.perf_counter(), []
        if self.trainer.refresh and state.global_step:
            self.trainer.refresh()

    def on_step_end(self, args, state, control, **kwargs):
        loss, query_terms, doc_terms = self.trainer.last
        self.steps.append(self.trainer.last)
        self.bar.set_postfix_str(
            f"loss {loss:.3f}, query terms {query_terms:.0f}, doc terms {doc_terms:.0f}", refresh=False
        )
        self.bar.update()

    def on_epoch_end(self, args, state, control, **kwargs):
        means = [sum(values) / len(values) for values in zip(*self.steps)]
        record = {
            "epoch": round(state.epoch),
            "step": state.global_step,
            **dict(zip(("loss", "query_terms", "doc_terms"), means)),
        }
        for side in SIDES:
            record[f"lambda_{side[0]}"] = self.trainer.sparsity[side].current_lambda
        record["seconds"] = round(time.perf_counter() - self.started, 1)
        self.trainer.history.append(record)
        if args.eval_strategy == "no":
            self._print_record(record)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        names = ("loss", VALIDATION_METRIC, "query_terms", "doc_terms")
        self.trainer.history[-1] |= {f"val_{name}": metrics[f"eval_{name}"] for name in names}
        self._print_record(self.trainer.history[-1])

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()

    def _print_record(self, record: dict[str, Any]) -> None:
        print_line("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()))


def _random_state(device: torch.device) -> list[torch.Tensor]:
    """The generators that dropout draws from."""
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _set_random_state(state: Sequence[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.cuda.set_rng_state(state[1], device)
