"""Weights of a model in 8 bits, in a file of their own: a quarter of the size.

Each row of a matrix, the weights of one output or the embedding of one token, has a quantization step of its own. The
file has, for each matrix NAME, its codes `NAME` (int8) and `NAME.step` (float32, [rows]); what is no matrix is in
float32. Where only some rows of the embeddings are there, `NAME.rows` (bool) says which of all; the others are 0.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils import cached_file

from utils.models import loading, resolve_model

INT8_FILE = "model_int8.safetensors"
LARGEST_CODE = 127


def quantize_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the int8 codes of a matrix [rows, size] and the quantization step of each row, [rows]."""
    step = quantization_steps(weight)
    return (weight / step[:, None]).round().to(torch.int8), step


def quantization_steps(weight: torch.Tensor) -> torch.Tensor:
    """Return the quantization step of each row of a matrix [rows, size]."""
    step = weight.abs().amax(1) / LARGEST_CODE
    step[step == 0] = 1
    return step


def write_int8_weights(model: PreTrainedModel, folder: Path, pieces: torch.Tensor | None = None) -> None:
    """Write the weights of a model to `folder`; of the token embeddings only the rows `pieces`, if given."""
    embeddings = model.get_input_embeddings().weight
    tensors = {}
    for name, weight in model.named_parameters():
        weight = weight.detach().cpu()
        if weight.dim() != 2:
            tensors[name] = weight.contiguous()
            continue
        if pieces is not None and len(weight) == len(embeddings):
            rows = torch.zeros(len(weight), dtype=torch.bool)
            rows[pieces] = True
            tensors[f"{name}.rows"], weight = rows, weight[rows]
        tensors[name], tensors[f"{name}.step"] = quantize_rows(weight)
    save_file(tensors, folder / INT8_FILE, {"format": "pt"})


def read_int8_weights(name: str | Path) -> dict[str, torch.Tensor]:
    """Return the weights of the model called `name`, in float32.

    Raises:
        ValueError, OSError: the file is missing or broken.
    """
    with loading(name, "a model with 8-bit weights"):
        tensors = load_file(cached_file(resolve_model(name), INT8_FILE))
        weights = {}
        for key, codes in tensors.items():
            if key.endswith((".step", ".rows")):
                continue
            if codes.dtype != torch.int8:
                weights[key] = codes
                continue
            weight = codes.float() * tensors[f"{key}.step"][:, None]
            rows = tensors.get(f"{key}.rows")
            weights[key] = weight if rows is None else weight.new_zeros(len(rows), weight.shape[1])
            if rows is not None:
                weights[key][rows] = weight
    return weights
