"""Attention within each text on the CPU in C++ (cpp/attention.cpp), in float32, with its gradient.

One head over one text is a task of one thread, whose scores stay in cache. The forward pass keeps the logarithms of the
softmax's sums, from which the backward pass computes the weights again, as in FlashAttention (Dao et al., arXiv
2205.14135): no [tokens, tokens] matrix is ever kept.
"""

from itertools import accumulate

import torch

from utils.splade import kernels


class NativeAttention(torch.autograd.Function):
    """(query, key, value [tokens, heads, size], lengths of the texts, factor of the scores) -> the same shape and type.

    Its gradient has no gradient. Query, key and value are kept for it in their own type, and the result in float32.

    Raises:
        ValueError: query, key and value differ in shape, or are not of so many tokens as the texts.
    """

    @staticmethod
    def forward(ctx, query, key, value, lengths, scale):
        if not query.shape == key.shape == value.shape or len(query) != sum(lengths):
            shapes = ", ".join(str(tuple(part.shape)) for part in (query, key, value))
            raise ValueError(
                f"attention of {shapes} over {sum(lengths)} tokens: all must have one shape, of these tokens"
            )
        ctx.lengths, ctx.scale = lengths, scale
        tokens, heads, _ = query.shape
        inputs = [_as_float32(part) for part in (query, key, value)]
        out, log_sums = torch.empty_like(inputs[0]), torch.empty(heads, tokens)
        _call("attention", *inputs, lengths, scale, out, log_sums)
        ctx.save_for_backward(query, key, value, out, log_sums)
        return out.to(query.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        *saved, out, log_sums = ctx.saved_tensors
        query, key, value = (_as_float32(part) for part in saved)
        grads = [torch.empty_like(part) for part in (query, key, value)]
        _call("attention_backward", query, key, value, ctx.lengths, ctx.scale, out, log_sums, _as_float32(grad), *grads)
        return *grads, None, None  # autograd converts each to the type of its input


def _as_float32(tensor):
    return tensor.float().contiguous()


def _call(name, query, key, value, lengths, scale, *others):
    _, heads, size = query.shape
    products = 2 * heads * size * sum(length * length for length in lengths)
    kernels.call(
        name,
        query,
        key,
        value,
        torch.tensor([0, *accumulate(lengths)]),
        len(lengths),
        heads,
        size,
        torch.tensor([scale]),
        *others,
        products=products * kernels.COSTS["float32"],
    )
