"""Open a model for encoding, whatever computes it."""

from pathlib import Path

import torch

from utils.splade.base_encoder import Encoder
from utils.splade.encoder import SpladeEncoder
from utils.splade.model_folder import read_model_folder
from utils.splade.onnx_encoder import GRAPHS, OnnxEncoder


def open_encoder(
    name: str | Path,
    device: str | torch.device | None = None,
    max_length: int | None = None,
    precision: str = "auto",
    threads: int | None = None,
) -> Encoder:
    """Open the model called `name`: a folder of transformers or of sentence-transformers, or one that
    `optimize_model.py` made, whose files tell what computes it; a hub id, or a name in utils.models.

    Args and errors: see `SpladeEncoder.from_pretrained` and `OnnxEncoder`.
    """
    folder = read_model_folder(name)
    if folder.config.weights in GRAPHS:
        return OnnxEncoder(name, folder, device, max_length, precision, threads)
    encoder = SpladeEncoder.from_pretrained(name, device, max_length, precision, threads, folder)
    encoder.freeze()
    return encoder
