"""A transformer's linear layers on 8-bit codes, for encoding on a processor with AVX-512 VNNI.

Each output of a layer has a step of its own, and so has each token, found as it comes (LLM.int8(), Dettmers et al.,
arXiv 2208.07339, without its columns of outliers). Sums are exact; rounding changes a layer's output by about 1 %, so
vectors are close to the model's own, not the same.
"""

import functools

import torch
from transformers import PreTrainedModel

from utils import vnni


def quantise_linears(model: PreTrainedModel) -> None:
    """Let the linear layers of `model` run on 8-bit codes wherever no gradient is wanted.

    Raises:
        ValueError: this machine cannot.
    """
    if model.device.type != "cpu" or not vnni.available():
        raise ValueError("precision 'int8' needs the CPU, one with AVX-512 VNNI, and the compiler g++: use auto")
    projection = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not projection:
            module.forward = functools.partial(_forward, module)


def _forward(layer: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
    product = torch.nn.functional.linear if torch.is_grad_enabled() else vnni.linear
    return product(states, layer.weight, layer.bias)
