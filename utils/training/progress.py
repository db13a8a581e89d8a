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

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = progress_bar(total=state.max_steps, initial=state.global_step, desc="training", unit="steps")

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.started, self.steps = time.perf_counter(), []
        if self.trainer.refresh and state.global_step:
            self.trainer.refresh()

    def on_step_end(self, args, state, control, **kwargs):
        step = self.trainer.last_step
        self.steps.append(step)
        self.bar.set_postfix_str(
            f"loss {step.loss:.3f}, query terms {step.query_terms:.0f}, doc terms {step.doc_terms:.0f}", refresh=False
        )
        self.bar.update()

    def on_epoch_end(self, args, state, control, **kwargs):
        means = [sum(values) / len(values) for values in zip(*self.steps)]
        record = {
            "epoch": round(state.epoch),
            "step": state.global_step,
            **dict(zip(StepStats._fields, means)),
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
