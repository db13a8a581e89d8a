"""The SPLADE head on the CPU, in C++ (cpp/head.cpp): exact in float32, at the speed of 8-bit products.

A SPLADE vector has a few hundred active terms among tens of thousands. Candidates are found on the product of tokens
and terms rounded to 8 bits, with a bound on the rounding error: by Cauchy-Schwarz, for a token h = q + e and a term
w = r + f (rounded part and rounding error),

    h . w  <=  q . r + |e| |w| + |q| |f|

A term whose bound plus bias is not above zero for any token has weight zero. The others, about twice as many as are
active, are computed in float32, together with the token of the maximum. Both stages keep the maximum in registers.
Where many texts are encoded, a first product of fewer dimensions leaves a tenth of the terms (directions.py).
"""

from itertools import accumulate
from typing import NamedTuple

import torch

from utils.splade import kernels
from utils.splade.directions import Survey


class ActiveTerms(NamedTuple):
    """Active terms of B texts, K in all: one text after the other, each with its terms in ascending order."""

    offsets: torch.Tensor  # [B + 1] int64: where each text's terms begin; last, K
    terms: torch.Tensor  # [K] int32
    weights: torch.Tensor  # [K] float32
    winners: torch.Tensor  # [K] int32: token of each weight's maximum, counted from its text's first


class NativeHead(torch.autograd.Function):
    """The head in C++: (hidden, lengths, weight, bias) -> [batch, vocabulary] float32; see `head.splade_head`."""

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
        hidden, weight, *saved = ctx.saved_tensors
        active = ActiveTerms(*saved)
        grad_hidden, grad_weight = torch.zeros(hidden.shape), torch.zeros(weight.shape)
        grad_bias = None if ctx.bias_dtype is None else torch.zeros(len(weight))
        inputs = (
            _as_float32(grad),
            _as_float32(hidden),
            _offsets(ctx.lengths),
            len(ctx.lengths),
            _as_float32(weight),
            *weight.shape,
        )
        slopes = torch.empty_like(active.weights)
        kernels.call("backward", *inputs, *active, slopes, grad_hidden, grad_weight, grad_bias)
        grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias_dtype)
        return grad_hidden.to(hidden.dtype), None, grad_weight.to(weight.dtype), grad_bias


def active_terms(
    hidden: torch.Tensor,
    lengths: list[int],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    dense: torch.Tensor | None = None,
) -> ActiveTerms:
    """Return the active terms; write their weights also into `dense`, zeroed float32 [batch, vocabulary], if given."""
    packed = kernels.pack(weight)
    survey = directions = None
    if dense is None:  # weights that are trained change before directions would pay
        parameters = [weight] if bias is None else [weight, bias]
        survey = kernels.keep(parameters, "survey", lambda size=weight.shape[1]: Survey(size))
    hidden, weight, bias = _as_float32(hidden), _as_float32(weight), _as_float32(bias)
    if survey:
        directions = survey.directions(hidden, lengths, weight, bias)
    counts = torch.empty(len(lengths) + 1, dtype=torch.int64)
    inputs = hidden, _offsets(lengths), len(lengths), weight, bias, list(packed), *weight.shape
    screen = directions[:2] if directions else (None, 0)
    found = kernels.call("find", *inputs, *screen, counts, products=hidden.numel() * len(weight))
    *counts, left = counts.tolist()
    if directions and lengths:
        survey.report(directions, left / (len(lengths) * len(weight)))
    offsets = _offsets(counts)
    total = int(offsets[-1])
    active = ActiveTerms(
        offsets,
        torch.empty(total, dtype=torch.int32),
        torch.empty(total, dtype=torch.float32),
        torch.empty(total, dtype=torch.int32),
    )
    kernels.call("collect", found, offsets, len(lengths), len(weight), *active[1:], dense, products=total)
    return active


def _as_float32(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.float().contiguous()


def _offsets(lengths: list[int]) -> torch.Tensor:
    """Return the [len(lengths) + 1] starts of consecutive runs of these lengths, and their end."""
    return torch.tensor([0, *accumulate(lengths)])
