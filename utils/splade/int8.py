"""A transformer on 8-bit codes, for encoding on a processor with AVX-512 VNNI.

Each output of a linear layer has a step of its own, and so has each token, found as it comes (LLM.int8(), Dettmers et
al., arXiv 2208.07339, without its columns of outliers). Sums are exact; rounding changes a layer's output by about 1 %,
so vectors are close to the model's own, not the same.

Layers as in BERT (attention, feed-forward network, each with a sum and a normalization after it) run as a whole over
packed texts, in parts that stay in cache. In attention, queries, keys and values are 8-bit codes, and its weights have
14 bits. In other layers it is the linear ones alone.
"""

import functools
from itertools import accumulate

import torch
from transformers import PreTrainedModel

from utils.splade import vnni

MAX_LAYER_ERROR = 0.05  # of a layer's change of its states: what a whole layer may differ by from the model's own


def quantize(model: PreTrainedModel) -> None:
    """Let `model` run on 8-bit codes wherever no gradient is wanted.

    Raises:
        ValueError: this machine cannot.
    """
    if model.device.type != "cpu" or not vnni.available():
        raise ValueError("precision 'int8' needs the CPU, one with AVX-512 VNNI, and the compiler g++: use auto")
    for module in list(model.modules()):
        parts = _layer_parts(module, model.config)
        if parts:
            module.forward = functools.partial(_layer_forward, module.forward, *parts)
    projection = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not projection:
            module.forward = functools.partial(_linear_forward, module)


def _linear_forward(linear: torch.nn.Linear, states: torch.Tensor) -> torch.Tensor:
    product = torch.nn.functional.linear if torch.is_grad_enabled() else vnni.linear
    return product(states, linear.weight, linear.bias)


def _layer_forward(forward, linears, norms, heads, states, *args, **kwargs) -> torch.Tensor:
    lengths = kwargs.get("text_lengths")
    if torch.is_grad_enabled() or lengths is None:
        return forward(states, *args, **kwargs)
    parameters = [part for linear in linears for part in (*vnni.pack(linear.weight)[:2], linear.bias)]
    parameters += [part for norm in norms for part in (norm.weight, norm.bias)]
    states = states.clone(memory_format=torch.contiguous_format)
    vnni.call(
        "layer",
        states,
        torch.tensor([0, *accumulate(lengths)]),
        len(lengths),
        states.shape[-1],
        heads,
        linears[4].out_features,
        torch.tensor([0 if part is None else part.data_ptr() for part in parameters]),
        torch.tensor([norm.eps for norm in norms]),
    )
    return states


def _layer_parts(module, config):
    """The six linear layers, two normalizations and number of heads of a layer as vnni_layers.cpp computes it, which is
    found out by trying; None where `module` is something else."""
    linears = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    norms = [part for part in module.modules() if isinstance(part, torch.nn.LayerNorm)]
    heads = getattr(config, "num_attention_heads", 0)
    if len(linears) != 6 or len(norms) != 2 or any(norm.bias is None for norm in norms) or not heads:
        return None
    size, inner = linears[0].in_features, linears[4].out_features
    head = size // heads
    shapes = [(size, size)] * 4 + [(inner, size), (size, inner)]
    if (
        [linear.weight.shape for linear in linears] != shapes
        or head * heads != size
        or head % 16
        or head > vnni.PANEL_ROWS
    ):
        return None
    lengths = [5, 3]
    states = torch.randn(1, sum(lengths), size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            own = module(states, text_lengths=lengths)
        except Exception:  # a module that takes something else
            return None
        ours = _layer_forward(module.forward, linears, norms, heads, states, text_lengths=lengths)
    same = isinstance(own, torch.Tensor) and (ours - own).norm() < MAX_LAYER_ERROR * (own - states).norm()
    return (linears, norms, heads) if same else None
