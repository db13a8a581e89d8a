"""The SPLADE head on a processor with AVX-512 VNNI, in C++ (splade_head.cpp): exact in float32, at the speed of int8.

A SPLADE vector has a few hundred non-zero terms among tens of thousands. Which they are is found on a product of
tokens and terms rounded to 8 bits, with a bound of what the rounding can have changed: by Cauchy-Schwarz, for a token
h = q + e and a term w = r + f (rounded part and rest),

    h . w  <=  q . r + |e| |w| + |q| |f|

A term whose bound plus bias is not above zero for any token has weight zero. The others, about twice as many as are
active, are computed in float32, with the token that won. Both stages take the maximum in registers.
"""

import ctypes
from typing import NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from utils.native import load_library

PANEL = 64  # terms; as in the C++


class Active(NamedTuple):
    """The non-zero weights of B texts: text i has counts[i] of them, at the front of row i, terms ascending."""

    counts: torch.Tensor  # [B] int64
    terms: torch.Tensor  # [B, V] int32
    weights: torch.Tensor  # [B, V] float32
    winners: torch.Tensor  # [B, V] int32: the token that each weight is from, counted from its text's first


class _Packed(NamedTuple):
    """A projection rounded to 8 bits in the order that the kernel reads it, and for each term the size of a step, the
    norm of what rounding lost, and its own norm."""

    codes: torch.Tensor
    scale: torch.Tensor
    error: torch.Tensor
    norm: torch.Tensor
    version: tuple


_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def available() -> bool:
    return load_library("splade_head") is not None


class NativeHead(torch.autograd.Function):
    """(hidden, lengths, weight, bias) -> [batch, vocabulary] float32; see `utils.splade_head.splade_head`."""

    @staticmethod
    def forward(ctx, hidden, lengths, weight, bias):
        dense = torch.zeros(len(lengths), len(weight))
        active = active_terms(hidden, lengths, weight, bias, dense)
        ctx.save_for_backward(hidden, weight, *active)
        ctx.lengths = lengths
        ctx.bias_dtype = None if bias is None else bias.dtype
        return dense

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, weight, *active = ctx.saved_tensors
        grad_hidden, grad_weight = torch.zeros(hidden.shape), torch.zeros(weight.shape)
        grad_bias = None if ctx.bias_dtype is None else torch.zeros(len(weight))
        inputs = (_float(grad), _float(hidden), _offsets(ctx.lengths), len(ctx.lengths), _float(weight), *weight.shape)
        _call("backward", *inputs, *active, torch.empty(grad.shape), grad_hidden, grad_weight, grad_bias)
        grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias_dtype)
        return grad_hidden.to(hidden.dtype), None, grad_weight.to(weight.dtype), grad_bias


def active_terms(
    hidden: torch.Tensor,
    lengths: list[int],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    dense: torch.Tensor | None = None,
) -> Active:
    """The non-zero weights, and the same in zeroed float32 `dense` [batch, vocabulary] where it is given."""
    hidden, weight, bias = _float(hidden), _float(weight), _float(bias)
    shape = len(lengths), len(weight)
    # Rows as wide as the vocabulary cost no memory: pages that nothing is written to are never there.
    active = Active(
        torch.empty(shape[0], dtype=torch.int64),
        torch.empty(shape, dtype=torch.int32),
        torch.empty(shape, dtype=torch.float32),
        torch.empty(shape, dtype=torch.int32),
    )
    packed = _pack(weight)
    inputs = (hidden, _offsets(lengths), len(lengths), weight, bias, *packed[:4], *weight.shape)
    _call("forward", *inputs, *active, dense)
    return active


def _pack(weight: torch.Tensor) -> _Packed:
    """The packed projection, kept until the weights change; weights in training change at every step."""
    version = (weight.data_ptr(), weight._version) if not weight.is_inference() else ()
    kept = _packed.get(weight)
    if kept and version and kept.version == version:
        return kept
    vocabulary, size = weight.shape
    codes = torch.empty(-(-vocabulary // PANEL) * PANEL * -(-size // 4) * 4, dtype=torch.uint8)
    packed = _Packed(codes, *(torch.empty(vocabulary) for _ in range(3)), version)
    _call("pack", weight, vocabulary, size, *packed[:4])
    _packed[weight] = packed
    return packed


def _float(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def _offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def _call(name: str, *arguments: torch.Tensor | int | None) -> None:
    """Call the library's function with tensors as pointers and the number of threads behind them."""
    values = [
        ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(None if a is None else a.data_ptr())
        for a in arguments
    ]
    getattr(load_library("splade_head"), name)(*values, ctypes.c_int(torch.get_num_threads()))
