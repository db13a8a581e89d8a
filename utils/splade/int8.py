"""Int8 inference of a transformer, for encoding on a processor with AVX-512 VNNI.

Each output of a linear layer has its own quantization step, and so has each token, computed at run time (LLM.int8(),
Dettmers et al., arXiv 2208.07339, without its outlier columns). Sums are exact; rounding changes a layer's output by
about 1 %, so vectors are close to those in float32, not the same.

Layers as in BERT (attention and feed-forward network, each followed by a residual sum and a normalization) run as a
whole over packed texts, in groups of texts that stay in cache. In attention, queries, keys and values have 8 bits, the
attention weights 14. In other architectures only the linear layers are quantized.
"""

import functools
from itertools import accumulate

import torch
from transformers import PreTrainedModel

from utils.splade import vnni

MAX_LAYER_ERROR = (
    0.05  # norm of an int8 layer's error over that of the change a layer makes; above it, it stays in float32
)


def quantize(model: PreTrainedModel) -> None:
    """Make `model` run in int8 wherever gradients are off.

    Raises:
        ValueError: the model is not on a CPU, or this machine lacks AVX-512 VNNI or the compiler.
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
    """Run a whole layer in int8 on packed texts; with gradients, or without packed texts, the model's own `forward`."""
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
    """Return the six linear layers, two normalizations and number of heads of a layer that vnni_layers.cpp computes;
    None if `module` is no such layer, which a run on random states decides."""
    linears = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    norms = [part for part in module.modules() if isinstance(part, torch.nn.LayerNorm)]
    heads = getattr(config, "num_attention_heads", 0)
    if len(linears) != 6 or len(norms) != 2 or any(norm.bias is None for norm in norms) or not heads:
        return None
    size, inner = linears[0].in_features, linears[4].out_features
    head_size = size // heads
    shapes = [(size, size)] * 4 + [(inner, size), (size, inner)]
    if (
        [linear.weight.shape for linear in linears] != shapes
        or head_size * heads != size
        or head_size % 16
        or head_size > vnni.PANEL_ROWS
    ):
        return None
    lengths = [5, 3]
    states = torch.randn(1, sum(lengths), size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            expected = module(states, text_lengths=lengths)
        except Exception:  # a module that takes other arguments
            return None
        result = _layer_forward(module.forward, linears, norms, heads, states, text_lengths=lengths)
    close = (
        isinstance(expected, torch.Tensor) and (result - expected).norm() < MAX_LAYER_ERROR * (expected - states).norm()
    )
    return (linears, norms, heads) if close else None
