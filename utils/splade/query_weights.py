"""Query term weights of an inference-free query encoder, stored so that sentence-transformers opens the folder too.

The model does not encode queries then: a query's vector is the weights of its own tokens (SPLADE-doc, arXiv 2109.10086,
section 3.3; inference-free retrievers, arXiv 2411.04403).
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from utils.models import resolve_model, save_tokenizer

IDF_FOLDER = "query_idf"  # subfolder of a model folder


def load_query_weights(name: str | Path) -> torch.Tensor:
    """Load the [vocabulary] query weights of the model called `name`."""
    return load_file(cached_file(resolve_model(name), f"{IDF_FOLDER}/model.safetensors"))["weight"]


def save_query_weights(folder: Path, weights: torch.Tensor, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write [vocabulary] query weights into a model folder, in the layout of sentence-transformers' Router: one route
    for queries, another for documents."""
    query_folder = folder / IDF_FOLDER
    save_tokenizer(tokenizer, query_folder)
    save_file({"weight": weights.detach().cpu().contiguous()}, query_folder / "model.safetensors")
    (folder / "pooling").mkdir()
    parts = {IDF_FOLDER: "SparseStaticEmbedding", ".": "MLMTransformer", "pooling": "SpladePooling"}
    kinds = {name: f"sentence_transformers.sparse_encoder.models.{kind}" for name, kind in parts.items()}
    router = {
        "types": kinds,
        "structure": {"query": [IDF_FOLDER], "document": [".", "pooling"]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    files = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}],
        "router_config.json": router,
        "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
        f"{IDF_FOLDER}/config.json": {"frozen": False},
        "pooling/config.json": {"pooling_strategy": "max", "activation_function": "relu"},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
