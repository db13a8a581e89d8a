"""Checkpoints of a training: where they lie, which one to resume from, and what they hold beside the model."""

import json
import shutil
from pathlib import Path
from typing import Any

from utils.files import write_json

CHECKPOINTS_FOLDER = "checkpoints"  # within the output folder, until the training ends
STATE_NAME = "splade_training.json"  # written last: a checkpoint that has it is whole
FREE_SETTINGS = {"device", "threads", "output_dir"}  # that a resumed training may change


def save_state(checkpoint: Path, state: dict[str, Any], best: str | None) -> None:
    """Complete `checkpoint` with its state, then remove all others but the `best` one."""
    write_json(checkpoint / STATE_NAME, state)
    kept = {str(checkpoint), best}
    for other in checkpoint.parent.glob("checkpoint-*"):
        if str(other) not in kept:
            shutil.rmtree(other)


def load_state(checkpoint: str | Path) -> dict[str, Any]:
    """Load what `save_state` wrote."""
    return json.loads(Path(checkpoint, STATE_NAME).read_text(encoding="utf-8"))


def find_checkpoint(folder: Path, settings: dict[str, Any], resume: bool) -> Path | None:
    """Return the last whole checkpoint in `folder`; None where there is none.

    Args:
        settings: those of the training to come, as JSON has them; a resumed one must have been begun with the same.

    Raises:
        ValueError: there is a checkpoint and `resume` is False, or it was begun with other settings.
    """
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{STATE_NAME}")]
    if not whole:
        return None
    if not resume:
        raise ValueError(f"{folder}: holds an interrupted training; go on with it by --resume, or remove this folder")
    last = max(whole, key=lambda path: int(path.name.rpartition("-")[2]))
    before = load_state(last)["settings"]
    for name in settings.keys() - FREE_SETTINGS:
        if before.get(name) != settings[name]:
            raise ValueError(
                f"{last}: was trained with {name} {before.get(name)}, not {settings[name]}; resume with the same"
            )
    return last
