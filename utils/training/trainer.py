"""transformers' Trainer for a SpladeEncoder: the steps, evaluation, checkpoints and records of a training."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from utils.console import print_line
from utils.device import is_out_of_memory, random_state, set_random_state
from utils.evaluation.collection import Collection
from utils.evaluation.runs import ModelRun, run_model
from utils.splade.encoder import SpladeEncoder
from utils.training.batches import StepBatchSampler, collate, gather_step
from utils.training.checkpoints import CheckpointTimer, load_state, save_state
from utils.training.guards import TrainingGuard
from utils.training.lora import merge_adapters, restore_adapters
from utils.training.losses import RankingLoss
from utils.training.progress import SIDES, ProgressCallback, StepStats
from utils.training.settings import VALIDATION_METRIC, TrainingSettings
from utils.training.sparsity import WARM_UP_SHARE, SparsityController, bias_shift
from utils.training.tokenization import TokenizedExample, TokenizedExamples

ADAPTERS_NAME = "adapters.safetensors"  # in a checkpoint, beside its merged model
NEGATIVES_NAME = "negatives.npz"  # in a checkpoint within an epoch, where negatives are refreshed
IDF_RATE_FACTOR = 20  # learning rate of query weights, one number a term, over that of the model's weights
TARGET_TOLERANCE = 0.1  # relative distance from a target number of terms within which an epoch may be the best
CURVE_POINTS = 200  # steps of a training that are logged, for its curves


class EncoderTrainer(Trainer):
    """Trains a SpladeEncoder on tokenized examples.

    Args:
        model: what is trained.
        arguments: transformers' settings, see `training_arguments`.
        settings: ours, with a learning rate.
        batches, validation_batches: which examples make each step, and each step of the validation.
        examples, validation: tokenized examples.
        collection: what `validation`'s queries search after each epoch.
        objective: the ranking loss.
        refresh: called before each epoch but the first; sets the examples' negatives.
        data: fingerprints of the files, for the checkpoints.
        terms: ids of the vocabulary that the texts of all steps have weights for; None for all.

    Attributes:
        history: one record an epoch, see SpladeTrainer.train.
        sparsity: the controllers of the regularization of queries and of documents.
        last_step: the stats of the last step.
        best_run: the best epoch's on the validation queries, None where an earlier process had it.
    """

    def __init__(
        self,
        model: SpladeEncoder,
        arguments: TrainingArguments,
        settings: TrainingSettings,
        batches: StepBatchSampler,
        validation_batches: StepBatchSampler,
        examples: TokenizedExamples,
        validation: TokenizedExamples,
        collection: Collection,
        objective: RankingLoss,
        refresh: Callable[[], None] | None,
        data: dict[str, str | None],
        terms: torch.Tensor | None = None,
    ) -> None:
        steps = len(batches) * settings.epochs
        arguments.logging_steps = max(1, steps // CURVE_POINTS)
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=examples,
            eval_dataset=validation or None,
            data_collator=lambda part: collate(part, model, self.micro_batch),
        )
        self.batches, self.collection, self.settings = batches, collection, settings
        self.validation_batches = validation_batches
        self.objective, self.refresh, self.data = objective, refresh, data
        self.steps_per_epoch = len(batches)
        self.terms = None if terms is None else terms.to(model.device)
        lambdas = {"query": settings.lambda_q, "doc": settings.lambda_d}
        if model.query_weights is not None:
            lambdas["query"] = 0.0  # a query's terms are its own tokens: there is nothing to make sparser
        targets = {"query": settings.target_query_terms, "doc": settings.target_doc_terms}
        self.sparsity = {
            side: SparsityController(lambdas[side], steps, settings.regulariser, targets[side]) for side in SIDES
        }
        possible = model.vocabulary_size if terms is None else len(terms)
        self.guard = TrainingGuard(model.vocabulary_size, WARM_UP_SHARE * steps, settings.learning_rate, possible)
        self.micro_batch = settings.micro_batch_size
        self.history: list[dict[str, Any]] = []
        self.last_step = StepStats(0.0, 0.0, 0.0)
        self.best_run: ModelRun | None = None
        self._last_run: ModelRun | None = None
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.progress = ProgressCallback(self)
        self.add_callback(self.progress)
        self.add_callback(CheckpointTimer(settings.checkpoint_minutes, self.steps_per_epoch))

    @property
    def _adapted(self) -> bool:
        return self.settings.lora_rank is not None

    @property
    def best_epoch(self) -> int:
        """Epoch whose weights are kept, counted from 1."""
        best = self.state.best_global_step
        return best // self.steps_per_epoch if best else len(self.history)

    @property
    def _out_of_patience(self) -> bool:
        patience = self.settings.early_stopping_patience
        return patience is not None and len(self.history) - self.best_epoch >= patience

    def _determine_best_metric(self, metrics, trial):
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best:
            self.best_run = self._last_run
        if self._out_of_patience:
            self.control.should_training_stop = True
        return is_best

    def _init_training_state(self, max_steps, steps_per_epoch, epochs, *arguments):
        trained, steps = super()._init_training_state(max_steps, steps_per_epoch, epochs, *arguments)
        if self.state.best_global_step:  # the folder may have another name than when it was begun
            self.state.best_model_checkpoint = str(self._checkpoint_folder(self.state.best_global_step))
        return (epochs, 0) if self._out_of_patience else (trained, steps)

    def _checkpoint_folder(self, step: int) -> Path:
        return Path(self.args.output_dir, f"checkpoint-{step}")

    def create_optimizer(self, model=None):
        optimizer = super().create_optimizer(model)
        weights = self.model.query_weights
        if weights is not None:
            for group in optimizer.param_groups:
                group["params"] = [part for part in group["params"] if part is not weights]
            rate = IDF_RATE_FACTOR * self.args.learning_rate
            optimizer.add_param_group({"params": [weights], "lr": rate, "weight_decay": 0.0})
        return optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        share = functools.partial(rate_share, steps=num_training_steps, warmup_ratio=self.settings.warmup_ratio)
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader:
        return _StepLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=_as_inputs)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        return DataLoader(self.eval_dataset, batch_sampler=self.validation_batches, collate_fn=self.data_collator)

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        self._step(model, inputs["examples"])
        self.guard.check(self.state.global_step + 1, *self.last_step)
        for side, terms in zip(SIDES, self.last_step[1:]):
            self.sparsity[side].observe(terms)
        shift = bias_shift(self.sparsity["query"], self.sparsity["doc"])
        bias = self.model.model.get_output_embeddings().bias
        if shift and bias is not None:
            with torch.no_grad():
                bias += shift
        return torch.tensor(self.last_step.loss, device=self.args.device)

    def _step(self, model, examples: list[TokenizedExample]) -> None:
        """Run forward and backward; with fewer texts at a time where they do not fit the memory."""
        while True:
            inputs = self._prepare_inputs(collate(examples, self.model, self.micro_batch))
            try:
                return (self._whole_step if len(inputs["texts"]) == 1 else self._cached_step)(model, inputs)
            except RuntimeError as error:
                # Other processes wait for this one's part of the step: it cannot begin again.
                if not is_out_of_memory(error) or self.micro_batch == 1 or self.args.world_size > 1:
                    raise
            self.micro_batch = -(-min(self.micro_batch or len(inputs["places"]), len(inputs["places"])) // 2)
            print_line(f"out of memory: {self.micro_batch} texts in the model at a time from here on")
            self.model.zero_grad()

    def _whole_step(self, model, inputs) -> None:
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        self._backward(loss)

    def _cached_step(self, model, inputs) -> None:
        """Run a batch in parts: weights without gradients, the loss's gradient for them, then each part once more, with
        the same dropout, to pass that gradient on (GradCache, arXiv 2101.06983)."""
        states, weights = [], []
        for part in inputs["texts"]:
            states.append(random_state(self.args.device))
            with torch.no_grad(), self.compute_loss_context_manager():
                weights.append(model(**part, terms=self.terms))
        gathered = torch.cat(weights).requires_grad_()
        with self.compute_loss_context_manager():
            loss = self._loss(gathered, inputs, regularized=True)
        self._backward(loss)
        after = random_state(self.args.device)
        gradients = gathered.grad.split([len(part) for part in weights])
        for number, (part, state, gradient) in enumerate(zip(inputs["texts"], states, gradients), 1):
            set_random_state(state, self.args.device)
            # Processes may have different numbers of parts: they meet once, at the last.
            meets = number == len(states) or self.args.world_size == 1
            with contextlib.nullcontext() if meets else model.no_sync():
                with self.compute_loss_context_manager():
                    again = model(**part, terms=self.terms)
                again.backward(gradient)
        set_random_state(after, self.args.device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        weights = torch.cat([model(**part, terms=self.terms) for part in inputs["texts"]])
        loss = self._loss(weights, inputs, model.training)
        return (loss, {}) if return_outputs else loss

    def _loss(self, weights: torch.Tensor, inputs: dict[str, Any], regularized: bool) -> torch.Tensor:
        """Return the loss of a batch's weights: the ranking loss, which is what is shown and recorded, and the
        regularizers, whose weight changes from step to step."""
        step = gather_step(weights, inputs)
        loss = self.objective(step)
        terms = [(side.detach() > 0).sum(1).float().mean().item() for side in (step.queries, step.documents)]
        self.last_step = StepStats(loss.item(), *terms)
        if regularized:
            loss = loss + self.sparsity["query"].loss(step.queries) + self.sparsity["doc"].loss(step.documents)
        return loss

    def _backward(self, loss: torch.Tensor) -> None:
        """Run backward. Each process has the loss of all processes and the gradient of its own texts, and gradients are
        averaged: the factor makes up for that."""
        self.accelerator.backward(loss * self.args.world_size)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any):
        output = super().evaluation_loop(*args, **kwargs)
        self.model.eval()
        run = self._last_run = run_model(self.collection, self.model, VALIDATION_METRIC)
        terms = {"query_terms": run.query_terms, "doc_terms": run.doc_terms}
        found = {VALIDATION_METRIC: float(run.values.mean()), **terms}
        output.metrics.update({f"eval_{name}": value for name, value in found.items()})
        by_loss = self.settings.best_by == "loss"
        score = -output.metrics["eval_loss"] if by_loss else found[VALIDATION_METRIC]
        for side, controller in self.sparsity.items():
            # The penalty is steep: an epoch that is far from as sparse as asked cannot be the best.
            if controller.target:
                score -= 10 * max(0.0, abs(found[f"{side}_terms"] / controller.target - 1) - TARGET_TOLERANCE)
        output.metrics["eval_score"] = score
        return output

    def log(self, logs, start_time=None):
        if "grad_norm" in logs:  # a step's
            logs |= {"query_terms": self.last_step.query_terms, "doc_terms": self.last_step.doc_terms}
            logs |= {f"lambda_{side[0]}": self.sparsity[side].current_lambda for side in SIDES}
        super().log(logs, start_time)

    def _save(self, output_dir=None, state_dict=None):
        if not self.args.should_save:  # every process is asked to
            return
        adapted = self._adapted and merge_adapters(self.model.model)
        self.model.save_pretrained(output_dir)
        if adapted:
            restore_adapters(self.model.model, adapted)
            trained = {name: part for name, part in self.model.named_parameters() if part.requires_grad}
            save_file(trained, Path(output_dir, ADAPTERS_NAME))

    def _save_checkpoint(self, model, trial):
        folder = self._checkpoint_folder(self.state.global_step)
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as error:
            if "PytorchStreamWriter" not in str(error):  # torch.save, of the optimizer's state
                raise
            raise OSError(f"{folder}: cannot write the checkpoint; is the disk full?") from None
        self.accelerator.wait_for_everyone()  # each process has written its random state
        if not self.args.should_save:
            return
        if self.refresh and self.state.global_step % self.steps_per_epoch:
            examples = self.train_dataset
            np.savez(folder / NEGATIVES_NAME, document_numbers=examples.document_numbers, starts=examples.starts)
        state = {
            "settings": self.settings.to_json(),
            "data": self.data,
            "history": self.history,
            "epoch": self.progress.state_dict(),
            "sparsity": {side: controller.state_dict() for side, controller in self.sparsity.items()},
            "guard": self.guard.state_dict(),
        }
        save_state(folder, state, self.state.best_global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        state = load_state(resume_from_checkpoint)
        self.history[:] = state["history"]
        self.progress.load_state_dict(state["epoch"])
        self.guard.load_state_dict(state["guard"])
        for side, controller in self.sparsity.items():
            controller.load_state_dict(state["sparsity"][side])
        negatives = Path(resume_from_checkpoint, NEGATIVES_NAME)
        if negatives.exists():
            with np.load(negatives) as arrays:
                self.train_dataset.set_documents(**arrays)
        self._load_weights(resume_from_checkpoint)

    def _load_best_model(self):
        self._load_weights(self.state.best_model_checkpoint)

    def _load_weights(self, folder: str) -> None:
        if self._adapted:
            self.model.load_state_dict(load_file(Path(folder, ADAPTERS_NAME)), strict=False)
        else:
            self.model.load_state_dict(SpladeEncoder.from_pretrained(folder, self.model.device).state_dict())


def rate_share(step: int, steps: int, warmup_ratio: float) -> float:
    """Return the share of the peak learning rate in a step of `steps`, counted from 0: it grows linearly over
    `warmup_ratio` of them, then falls linearly to 0. No step has rate 0, so that each one trains."""
    warmup_steps = min(int(warmup_ratio * steps), steps - 1)
    return min((step + 1) / (warmup_steps + 1), (steps - step) / (steps - warmup_steps))


def _as_inputs(examples: list[TokenizedExample]) -> dict[str, list[TokenizedExample]]:
    """Leave collating to the step, which does it anew where the memory asks for smaller parts."""
    return {"examples": examples}


class _StepLoader(DataLoader):
    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)
