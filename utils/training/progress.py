"""What is shown and recorded of a training while it runs."""

import time
from typing import Any, NamedTuple

from transformers import Trainer, TrainerCallback

from utils.console import print_line, progress_bar
from utils.training.settings import VALIDATION_METRIC

SIDES = ("query", "doc")


class StepStats(NamedTuple):
    """A step's ranking loss, and the mean active terms of its queries and documents."""

    loss: float
    query_terms: float
    doc_terms: float


class ProgressCallback(TrainerCallback):
    """Shows a progress bar with loss and active terms, prints a line an epoch, and keeps the history's records.

    Args:
        trainer: an EncoderTrainer, whose history it extends.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.steps, self.sums = 0, [0.0] * len(StepStats._fields)  # of the epoch so far
        self.seconds = 0.0  # of the epoch until it was resumed

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress_bar(total=state.max_steps, initial=state.global_step, desc="training", unit="steps")

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epoch_started = time.perf_counter()
        if state.global_step % self.trainer.steps_per_epoch:
            return  # resumed within the epoch, which has its sums and its negatives
        self._begin_epoch()
        if self.trainer.refresh and state.global_step:
            self.trainer.refresh()

    def on_step_end(self, args, state, control, **kwargs):
        step = self.trainer.last_step
        self.steps, self.sums = self.steps + 1, [total + value for total, value in zip(self.sums, step)]
        stats = f"loss {step.loss:.3f}, query terms {step.query_terms:.0f}, doc terms {step.doc_terms:.0f}"
        self.bar.set_postfix_str(stats, refresh=False)
        self.bar.update()

    def on_epoch_end(self, args, state, control, **kwargs):
        record = {
            "epoch": round(state.epoch),
            "step": state.global_step,
            **dict(zip(StepStats._fields, (total / self.steps for total in self.sums))),
        }
        for side in SIDES:
            record[f"lambda_{side[0]}"] = self.trainer.sparsity[side].current_lambda
        record["seconds"] = round(self._epoch_seconds(), 1)
        self.trainer.history.append(record)
        if args.eval_strategy == "no":
            self._print_record(record)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        names = ("loss", VALIDATION_METRIC, "query_terms", "doc_terms")
        self.trainer.history[-1] |= {f"val_{name}": metrics[f"eval_{name}"] for name in names}
        self._print_record(self.trainer.history[-1])

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that is resumed within an epoch needs, for `load_state_dict`."""
        return {"steps": self.steps, "sums": self.sums, "seconds": self._epoch_seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier training's state."""
        vars(self).update(state_dict)

    def _epoch_seconds(self) -> float:
        return self.seconds + time.perf_counter() - self.epoch_started

    def _print_record(self, record: dict[str, Any]) -> None:
        print_line("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items()))
