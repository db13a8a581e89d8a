"""Checkpoints of a training: when they are written, what they hold beside the model, and which one to resume from."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers import TrainerCallback

from utils.files import write_json

CHECKPOINTS_FOLDER = "checkpoints"  # within the output folder, until the training ends
HISTORY_NAME = "training_history.json"  # in the output folder, once it has ended
STATE_NAME = "splade_training.json"  # written last: a checkpoint that has it is whole
# Settings that a resumed training may change; the files may have moved, and what they hold is compared by itself.
FREE_SETTINGS = {"device", "threads", "output_dir", "checkpoint_minutes", "train_file", "val_file"}


class CheckpointTimer(TrainerCallback):
    """Asks for a checkpoint within an epoch when `minutes` have passed since the last one; each epoch's end has one
    anyway."""

    def __init__(self, minutes: float, steps_per_epoch: int) -> None:
        self.minutes, self.steps_per_epoch = minutes, steps_per_epoch

    def on_train_begin(self, args, state, control, **kwargs):
        self.saved = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        due = time.monotonic() - self.saved >= 60 * self.minutes
        if args.world_size > 1:  # all processes take part in a checkpoint, so the first one's clock counts
            answer = torch.tensor([due], device=args.device)
            torch.distributed.broadcast(answer, 0)
            due = bool(answer)
        if due and state.global_step % self.steps_per_epoch:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        self.saved = time.monotonic()


def save_state(checkpoint: Path, state: dict[str, Any], best_step: int | None) -> None:
    """Complete `checkpoint` with its state, then remove all others but the one of `best_step`."""
    write_json(checkpoint / STATE_NAME, state)
    kept = {checkpoint.name, f"checkpoint-{best_step}"}
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other.name not in kept:
            shutil.rmtree(other)


def remove_checkpoints(folder: Path) -> None:
    """Remove the folder of all checkpoints. Whenever that is broken off, none that is left looks whole."""
    for state in folder.glob(f"checkpoint-*/{STATE_NAME}"):
        state.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def load_state(checkpoint: str | Path) -> dict[str, Any]:
    """Load what `save_state` wrote."""
    return json.loads(Path(checkpoint, STATE_NAME).read_text(encoding="utf-8"))


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints that a training into `output_dir` can go on from."""
    return [state.parent for state in (output_dir / CHECKPOINTS_FOLDER).glob(f"checkpoint-*/{STATE_NAME}")]


def find_checkpoint(
    output_dir: Path, settings: dict[str, Any], data: dict[str, str | None], resume: bool
) -> Path | None:
    """Return the last whole checkpoint of a training into `output_dir`; None where there is none.

    Args:
        settings: those of the training to come, as JSON has them; a resumed one must have been begun with the same.
        data: fingerprint by the setting that names the file, and with the same of these.

    Raises:
        ValueError: there is a checkpoint and `resume` is False, or it was begun with other settings or data; or there
            is none to resume and a model whose training has ended.
    """
    folder = output_dir / CHECKPOINTS_FOLDER
    whole = whole_checkpoints(output_dir)
    if not whole:
        if resume and (output_dir / HISTORY_NAME).exists():
            raise ValueError(
                f"{output_dir}: nothing to resume, the training of this model has ended; leave out `resume=True` to "
                "train anew in its place, or train it further as `model_name` into another `output_dir`"
            )
        return None
    if not resume:
        raise ValueError(f"{folder}: holds an interrupted training; go on by `resume=True`, or remove this folder")
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]))
    state = load_state(last)
    for name, value in settings.items():
        before = state["settings"].get(name)
        if name not in FREE_SETTINGS and before != value:
            raise ValueError(f"{last}: was trained with {name} {before}, not {value}; resume with the same")
    for name, digest in data.items():
        if state.get("data", {}).get(name) != digest:
            raise ValueError(
                f"{last}: was trained on other examples than {name} holds now; resume with the same, or remove "
                f"{folder} to begin anew"
            )
    return last
