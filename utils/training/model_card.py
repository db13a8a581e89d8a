"""The model card of a tuned model, README.md of its folder: what it is, its data, and how its training went."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.console import format_table
from utils.models import card_header
from utils.training.selection import describe_selection

PATH_SETTINGS = ("model_name", "train_file", "val_file")  # shown by their last part, without the machine's folders
HIDDEN_SETTINGS = ("output_dir", "device", "threads", *PATH_SETTINGS)
FORMULAS = {  # of a term's weight, by activation
    "log1p_relu": "log(1 + relu(logits))",
    "log1p_log1p_relu": "log(1 + log(1 + relu(logits)))",
}


def model_card(
    settings: dict[str, Any],
    history: Sequence[dict[str, Any]],
    best_epoch: int,
    examples: int,
    activation: str,
    selection: dict[str, Any] | None = None,
) -> str:
    """Return Markdown with the front matter that model hubs read.

    Args:
        settings: by name, as TrainingSettings.to_json returns them.
        history: one record an epoch, see SpladeTrainer.train.
        best_epoch: the epoch whose weights are in the folder.
        examples: number of training examples.
        activation: see `utils.splade.model_folder.ModelConfig`.
        selection: see `utils.training.selection.keep_best`; None without validation examples.
    """
    base = str(settings["model_name"])
    base = Path(base).name if Path(base).exists() else base
    files = [Path(settings[name]).name for name in PATH_SETTINGS[1:] if settings[name]]
    rows = [
        {"setting": name, "value": _format_setting(value)}
        for name, value in settings.items()
        if name not in HIDDEN_SETTINGS and value is not None
    ]
    best = selection or history[best_epoch - 1]
    terms = f"{best['doc_terms']:.0f} active terms a document and {best['query_terms']:.0f} a query"
    return f"""{card_header(base)}
# A SPLADE model tuned from {base}

It turns a text into weights of terms of its vocabulary, `{FORMULAS[activation]}`, maximum over tokens: {terms},
{"on the validation queries and what they search" if selection else "in training"}.

```python
from sentence_transformers import SparseEncoder

SparseEncoder("path/to/this/folder").encode(["a text"])
```

## Data

{examples:,} training examples, of {" and ".join(files)}.

## Training

{_format_selection(selection, best_epoch, len(history))}

```
{format_table(history)}
```

![loss, validation metric and active terms over the steps](training_curves.png)

## Settings

```
{format_table(rows)}
```
"""


def _format_selection(selection: dict[str, Any] | None, best_epoch: int, epochs: int) -> str:
    """Return what was kept, and what tuning gained."""
    best = f"Epoch {best_epoch} of {epochs} is the {'best' if selection else 'one kept'}."
    return f"{best} Of it, the training {describe_selection(selection)}." if selection else best


def _format_setting(value: Any) -> str:
    """Format a value as it would be typed; of a path, its last part."""
    if isinstance(value, list):
        return " ".join(map(_format_setting, value))
    return Path(value).name if isinstance(value, str) and Path(value).exists() else str(value)
