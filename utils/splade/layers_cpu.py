"""Layers of a transformer on the CPU in C++ (cpp/layers.cpp), for encoding, in float32, bfloat16 and 8 bits.

Layers as in BERT (attention and feed-forward network, each followed by a residual sum and a normalization) run as a
whole over packed texts, in groups of texts that stay in cache. Other architectures keep torch's operations, but for
their linear layers.

In bfloat16 both factors of the linear layers' products are rounded.

In 8 bits each output of a linear layer has its own quantization step, and so has each token, computed at run time
(LLM.int8(), Dettmers et al., arXiv 2208.07339, without its outlier columns). Sums are exact; rounding changes a layer's
output by about 1 %, so vectors are close to those in float32, not the same.

Attention has its products on such codes in both (as SageAttention, Zhang et al., arXiv 2410.02367, has those of queries
and keys), the softmax as the sum of two codes; it is in float32 where no instruction adds products of codes.
"""

import functools
from itertools import accumulate

import torch
from transformers import PreTrainedModel

from utils.splade import kernels

# Norm of a layer's error over that of the change that the layer makes; above it, the layer keeps torch's operations.
MAX_ERRORS = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.05}


def use_kernels(model: PreTrainedModel, precision: str = "float32") -> None:
    """Make `model` run in C++ wherever gradients and autocast are off, on the CPU, in a precision of `kernels.COSTS`;
    its weights may change, but once modules of it have been replaced, it is to be called again. On another device, and
    where the kernels are not available, the model stays as it is.

    Raises:
        ValueError: int8, and the model is not on a CPU, or the kernels are not available on this machine.
    """
    if precision == "int8" and (model.device.type != "cpu" or not kernels.available()):
        raise ValueError(
            "precision 'int8' needs the CPU and the kernels in C++ (AVX2 or NEON's dot products, the compiler g++, and "
            "not SPLADE_ISA=torch): use auto"
        )
    for module in model.modules():
        if getattr(module.__dict__.get("forward"), "func", None) in (_layer_forward, _linear_forward):
            del module.forward
    if model.device.type != "cpu" or not kernels.available():
        return
    for module in list(model.modules()):
        parts = _layer_parts(module, model.config, precision)
        if parts:
            module.forward = functools.partial(_layer_forward, module, precision, *parts)
    projection = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not projection:
            module.forward = functools.partial(_linear_forward, module, precision)


def _runs_in_torch(states: torch.Tensor, precision: str) -> bool:
    """Return whether an operation on `states` is left to torch."""
    other = precision != "int8" and (torch.is_autocast_enabled("cpu") or states.dtype != torch.float32)
    return torch.is_grad_enabled() or other or states.device.type != "cpu"


def _linear_forward(linear: torch.nn.Linear, precision: str, states: torch.Tensor) -> torch.Tensor:
    if _runs_in_torch(states, precision):
        return torch.nn.functional.linear(states, linear.weight, linear.bias)
    return torch.ops.splade.linear(states, linear.weight, linear.bias, precision)


def _layer_forward(module, precision, linears, norms, heads, states, *args, **kwargs) -> torch.Tensor:
    """Run a whole layer on packed texts, or on one when a forward is traced (`packing.trace_forward`); else, and where
    torch is to run, the model's own `forward`."""
    lengths = kwargs.get("text_lengths")
    if module.training or _runs_in_torch(states, precision) or (lengths is None and not torch.jit.is_tracing()):
        return type(module).forward(module, states, *args, **kwargs)
    none = torch.empty(0)
    parts = [part for own in (*linears, *norms) for part in (own.weight, none if own.bias is None else own.bias)]
    return torch.ops.splade.layer(states, parts, lengths or [], heads, [norm.eps for norm in norms], precision)


def _run_layer(
    states: torch.Tensor,
    parts: list[torch.Tensor],
    lengths: list[int],
    heads: int,
    epsilon: list[float],
    precision: str,
) -> torch.Tensor:
    """Compute a layer's output from states [1, tokens, size] of texts of these `lengths`, by default of one; `parts`
    are weight and bias, empty for none, of six linear layers and two normalizations."""
    own = [part for part in parts if part.numel()]
    parameters, products = kernels.keep(own, f"layer, {precision}", lambda: _parameters(parts, precision))
    lengths = lengths or [states.shape[1]]
    dtype = states.dtype
    states = states.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    kernels.call(
        "layer",
        states,
        torch.tensor([0, *accumulate(lengths)]),
        len(lengths),
        states.shape[-1],
        heads,
        parts[8].shape[0],
        parameters,
        torch.tensor(epsilon),
        kernels.precision_number(precision),
        products=states.shape[1] * products,
    )
    return states.to(dtype)


def _parameters(parts: list[torch.Tensor], precision: str) -> tuple[list[torch.Tensor | None], int]:
    """Return the arguments of the layer in C++ that are made of `parts`, and how many products of codes take as long as
    the layer does for a token."""
    pack = kernels.PACKERS[precision]
    others = [part.detach().float().contiguous() for part in (*parts[1:12:2], *parts[12:])]  # biases and normalizations
    arguments = [part for i in range(6) for part in (*pack(parts[2 * i])[:2], others[i])] + others[6:]
    products = sum(part.numel() for part in parts) * kernels.COSTS[precision]
    return [None if part is None or not len(part) else part for part in arguments], products


# As operations of torch, so that torch.jit can trace what calls them.
_OPERATIONS = torch.library.Library("splade", "DEF")
_OPERATIONS.define("linear(Tensor states, Tensor weight, Tensor? bias, str precision) -> Tensor")
_OPERATIONS.impl("linear", kernels.linear, "CPU")
_OPERATIONS.define(
    "layer(Tensor states, Tensor[] parts, int[] lengths, int heads, float[] epsilon, str precision) -> Tensor"
)
_OPERATIONS.impl("layer", _run_layer, "CPU")


def _layer_parts(module, config, precision):
    """Return the six linear layers, two normalizations and number of heads of a layer that cpp/layers.cpp computes;
    None if `module` is no such layer, which a run on random states decides."""
    linears = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    norms = [part for part in module.modules() if isinstance(part, torch.nn.LayerNorm)]
    heads = getattr(config, "num_attention_heads", 0)
    if len(linears) != 6 or len(norms) != 2 or any(norm.bias is None for norm in norms) or not heads:
        return None
    size, inner = linears[0].in_features, linears[4].out_features
    head_size = size // heads
    shapes = [(size, size)] * 4 + [(inner, size), (size, inner)]
    if [linear.weight.shape for linear in linears] != shapes or head_size * heads != size:
        return None
    lengths = [5, 3]
    states = torch.randn(1, sum(lengths), size, generator=torch.Generator().manual_seed(0))
    parts = linears, norms, heads
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            expected = type(module).forward(module, states, text_lengths=lengths)
            # In float32 too: rounding to 8 bits would hide that a layer is another one, such as by its activation.
            results = {
                name: _layer_forward(module, name, *parts, states, text_lengths=lengths)
                for name in {"float32", precision}
            }
    except Exception:  # a module that takes other arguments
        return None
    finally:
        for part in training:
            part.training = True
    kernels.forget(linear.weight for linear in linears)
    if not isinstance(expected, torch.Tensor):
        return None
    change = (expected - states).norm()
    close = all((result - expected).norm() < MAX_ERRORS[name] * change for name, result in results.items())
    return parts if close else None
