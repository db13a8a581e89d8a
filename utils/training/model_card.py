"""The README.md of a tuned model's folder: what it is, what it was made of, and how that went."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.console import format_table

PATH_SETTINGS = ("model_name", "train_file", "val_file")  # settings that may tell of the machine
HIDDEN_SETTINGS = ("output_dir", "device", "threads", *PATH_SETTINGS)


def model_card(settings: dict[str, Any], history: Sequence[dict[str, Any]], best_epoch: int, examples: int) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        settings: SpladeTrainer's, by name. Of paths only the last part is told.
        history: its records of the epochs.
        best_epoch: the epoch whose weights are in the folder.
        examples: how many it was trained on.
    """
    base = str(settings["model_name"])
    base = Path(base).name if Path(base).exists() else base
    files = [Path(settings[name]).name for name in PATH_SETTINGS[1:] if settings[name]]
    told = [
        {"setting": name, "value": _format_setting(value)}
        for name, value in settings.items()
        if name not in HIDDEN_SETTINGS
    ]
    best = history[best_epoch - 1]
    terms = f"{best['doc_terms']:.0f} active terms a document and {best['query_terms']:.0f} a query"
    return f"""---
base_model: {base}
pipeline_tag: feature-extraction
tags:
- splade
- sparse-encoder
---

# A SPLADE model tuned from {base}

It turns a text into weights of terms of its vocabulary, `log(1 + relu(logits))`, maximum over tokens: in training,
{terms}.

```python
from sentence_transformers import SparseEncoder

SparseEncoder("path/to/this/folder").encode(["a text"])
```

## Data

{examples:,} training examples, of {" and ".join(files)}.

## Training

Epoch {best_epoch} of {len(history)} is the one kept.

```
{format_table(history)}
```

![loss, validation metric and active terms over the steps](training_curves.png)

## Settings

```
{format_table(told)}
```
"""


def _format_setting(value: Any) -> str:
    """As it would be typed; a path without the folders that lead to it."""
    if isinstance(value, list):
        return " ".join(map(_format_setting, value))
    return Path(value).name if isinstance(value, str) and Path(value).exists() else str(value)
