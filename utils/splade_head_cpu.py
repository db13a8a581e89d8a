"""The SPLADE head on a processor with AVX-512 VNNI, in C++ (vnni.cpp): exact in float32, at the speed of int8.

A SPLADE vector has a few hundred non-zero terms among tens of thousands. Which they are is found on a product of
tokens and terms rounded to 8 bits, with a bound of what the rounding can have changed: by Cauchy-Schwarz, for a token
h = q + e and a term w = r + f (rounded part and rest),

    h . w  <=  q . r + |e| |w| + |q| |f|

A term whose bound plus bias is not above zero for any token has weight zero. The others, about twice as many as are
active, are computed in float32, with the token that won. Both stages take the maximum in registers.
"""

from typing import NamedTuple

import torch

from utils import vnni


class Active(NamedTuple):
    """The non-zero weights of B texts: text i has counts[i] of them, at the front of row i, terms ascending."""

    counts: torch.Tensor  # [B] int64
    terms: torch.Tensor  # [B, V] int32
    weights: torch.Tensor  # [B, V] float32
    winners: torch.Tensor  # [B, V] int32: the token that each weight is from, counted from its text's first


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
        vnni.call("backward", *inputs, *active, torch.empty(grad.shape), grad_hidden, grad_weight, grad_bias)
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
    inputs = (hidden, _offsets(lengths), len(lengths), weight, bias, *vnni.pack(weight), *weight.shape)
    vnni.call("forward", *inputs, *active, dense)
    return active


def _float(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def _offsets(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)
