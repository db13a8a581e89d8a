"""The fused SPLADE head: vocabulary projection, maximum over tokens and log saturation, forward and backward.

For a text with hidden states h_1..h_n, the weight of vocabulary term t is (Formal et al., SPLADE v2, arXiv 2109.10086)

    max over i of log(1 + relu(h_i . W_t + b_t))

log(1 + relu(x)) is non-decreasing in x and b_t does not depend on the token, so the maximum is taken over the raw
product while a tile of it is still in cache; bias, relu and log are then applied once, to [batch, vocabulary]. No
tensor of size [batch, tokens, vocabulary] is ever made. The gradient of a term flows to one token, the one with the
maximum, and only if the weight is not zero, so the backward pass visits the non-zero weights alone.

This module holds the head in torch operations, for every device, and dispatches to the faster kernels where they run;
and, for encoding alone, the head of SPLADE's first version, which sums over the tokens.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from utils.splade import head_cpu, kernels

TILE_TERMS = 2048  # vocabulary terms per matrix product; 2,048 by 256 tokens in float32 (2 MiB) stay in cache
BLOCK_TOKENS = 256  # most tokens per matrix product on the CPU, but for a longer text, which is a block of its own


def splade_head(
    hidden: torch.Tensor, lengths: list[int], weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the term weights of a batch of texts whose tokens are packed without padding.

    Args:
        hidden: [tokens, hidden] states of all texts, one text after the other.
        lengths: number of tokens of each text; they sum to `tokens`. A text of length 0 gets a zero vector.
        weight: [vocabulary, hidden] projection, in any floating dtype; the product runs in `hidden`'s, or autocast's.
        bias: [vocabulary] or None.

    Returns:
        [batch, vocabulary], float32 (float64 for float64 input), differentiable in hidden, weight and bias.
    """
    if _use_native_head(hidden):
        return head_cpu.NativeHead.apply(hidden, lengths, weight, bias)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    head = _TiledHead
    if hidden.is_cuda and hidden.dtype != torch.float64:
        from utils.splade import head_cuda  # imported late: Triton takes a second to import

        if head_cuda.available(hidden.device):
            head = head_cuda.TritonHead
    return head.apply(hidden, lengths, weight, bias)


def active_terms(
    hidden: torch.Tensor, lengths: list[int], weight: torch.Tensor, bias: torch.Tensor | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (vocabulary ids, ascending, int32; weights, float32) of each text's active terms.

    Arguments as in `splade_head`.
    """
    if _use_native_head(hidden):
        active = head_cpu.active_terms(hidden, lengths, weight, bias)
        terms, weights = active.terms.numpy(), active.weights.numpy()
        return [(terms[start:end], weights[start:end]) for start, end in pairwise(active.offsets.tolist())]
    return nonzero_terms(splade_head(hidden, lengths, weight, bias))


def nonzero_terms(dense: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what `active_terms` does, from [batch, vocabulary] term weights."""
    if len(dense) == 1:  # a query's, whose row is sooner fetched whole
        row = dense[0].float().cpu().numpy()
        terms = row.nonzero()[0]
        return [(terms.astype(np.int32), row[terms])]
    rows, terms = dense.nonzero(as_tuple=True)
    weights = dense[rows, terms].float().cpu().numpy()
    borders = np.cumsum(rows.bincount(minlength=len(dense)).cpu().numpy())[:-1]
    return list(zip(np.split(terms.int().cpu().numpy(), borders), np.split(weights, borders)))


@torch.no_grad()
def sum_head(
    hidden: torch.Tensor,
    lengths: list[int],
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    logarithms: int = 1,
) -> torch.Tensor:
    """Compute term weights that are sums over a text's tokens (Formal et al., SPLADE, arXiv 2107.05720): of
    log(1 + relu(h_i . W_t + b_t)), or with 2 `logarithms` of log(1 + that).

    Other arguments and the result as in `splade_head`; there is no gradient.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    wide = torch.promote_types(hidden.dtype, torch.float32)

    def saturate(product: torch.Tensor, terms: slice) -> torch.Tensor:
        product = product.to(wide)
        if bias is not None:
            product += bias[terms]
        product.relu_()
        for _ in range(logarithms):
            product.log1p_()
        return product

    out = torch.zeros(len(lengths), len(weight), dtype=wide, device=hidden.device)
    _fill(out, hidden, lengths, weight.to(hidden.dtype), torch.sum, saturate)
    return out


def _use_native_head(hidden: torch.Tensor) -> bool:
    return hidden.device.type == "cpu" and hidden.dtype != torch.float64 and kernels.available()


class _TiledHead(torch.autograd.Function):
    """The head in torch operations, tile of the vocabulary by tile."""

    @staticmethod
    def forward(ctx, hidden, lengths, weight, bias):
        # A text without tokens has -inf here, which relu turns into 0.
        weights = _max_product(hidden, lengths, weight.to(hidden.dtype))
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        if bias is not None:
            weights += bias
        weights = weights.relu_().log1p_()  # (B, V)
        ctx.save_for_backward(hidden, weight, bias, weights)
        ctx.lengths = lengths
        return weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, weight, bias, weights = ctx.saved_tensors
        wide = weights.dtype
        projection = weight.to(hidden.dtype)
        grad_hidden = torch.zeros(hidden.shape, dtype=wide, device=hidden.device)
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=hidden.device)
        grad_bias = None if bias is None else torch.zeros(bias.shape, dtype=wide, device=hidden.device)
        start = 0
        for row, length in enumerate(ctx.lengths):
            tokens = slice(start, start + length)
            start += length
            terms = weights[row].nonzero().squeeze(1)  # (K,) active terms of this text
            if not len(terms):
                continue
            # d log(1 + x) / dx = 1 / (1 + x) = exp(-log(1 + x))
            slope = grad[row, terms] * torch.exp(-weights[row, terms])  # (K,)
            winner = (hidden[tokens] @ projection[terms].T).argmax(0)  # (K,) token of each term's maximum
            grad_hidden[tokens].index_add_(0, winner, slope[:, None] * weight[terms].to(wide))
            grad_weight.index_add_(0, terms, slope[:, None] * hidden[tokens][winner].to(wide))
            if grad_bias is not None:
                grad_bias.index_add_(0, terms, slope)
        grad_bias = None if bias is None else grad_bias.to(bias.dtype)
        return grad_hidden.to(hidden.dtype), None, grad_weight.to(weight.dtype), grad_bias


def _max_product(hidden: torch.Tensor, lengths: list[int], weight: torch.Tensor) -> torch.Tensor:
    """Return the maximum over each text's tokens of hidden @ weight.T: [batch, vocabulary], -inf for an empty text."""
    out = torch.full((len(lengths), len(weight)), float("-inf"), dtype=hidden.dtype, device=hidden.device)
    _fill(out, hidden, lengths, weight, torch.amax)
    return out


def _fill(
    out: torch.Tensor,
    hidden: torch.Tensor,
    lengths: list[int],
    weight: torch.Tensor,
    reduce: Callable[..., torch.Tensor],
    saturate: Callable[[torch.Tensor, slice], torch.Tensor] | None = None,
) -> None:
    """Fill `out` [batch, vocabulary] with what `reduce` makes of each text's tokens of hidden @ weight.T, a tile of
    terms at a time, which `saturate` maps to weights first; rows of empty texts may stay as they are."""
    if len(hidden):
        fill = _fill_from_blocks if hidden.device.type == "cpu" else _fill_from_padded
        fill(out, hidden, lengths, weight, reduce, saturate)


def _fill_from_blocks(out, hidden, lengths, weight, reduce, saturate) -> None:
    """Fill `out` on the CPU: a few tokens at a time, without padding, so that each product stays in cache."""
    blocks = _group_tokens(lengths)
    for start in range(0, len(weight), TILE_TERMS):
        terms = slice(start, start + TILE_TERMS)
        tile = weight[terms].T  # (H, T)
        for tokens, rows in blocks:
            product = hidden[tokens] @ tile  # (block's tokens, T)
            if saturate:
                product = saturate(product, terms)
            for row, part in zip(rows, product.split([lengths[row] for row in rows])):
                reduce(part, 0, out=out[row, terms])


def _fill_from_padded(out, hidden, lengths, weight, reduce, saturate) -> None:
    """Fill `out` on accelerators: texts padded to one length, so that there are few and large products."""
    padded = pad_sequence(hidden.split(lengths), batch_first=True)  # (B, L, H)
    positions = torch.arange(padded.shape[1], device=hidden.device)
    padding = (positions >= torch.tensor(lengths, device=hidden.device)[:, None])[:, :, None]  # (B, L, 1)
    for start in range(0, len(weight), TILE_TERMS):
        terms = slice(start, start + TILE_TERMS)
        product = padded @ weight[terms].T  # (B, L, T)
        if saturate:
            product = saturate(product, terms)
        out[:, terms] = reduce(product.masked_fill_(padding, 0 if saturate else float("-inf")), 1)


def _group_tokens(lengths: list[int]) -> list[tuple[slice, list[int]]]:
    """Group neighboring texts into blocks (tokens, texts) of at most BLOCK_TOKENS; empty texts are left out."""
    blocks: list[tuple[slice, list[int]]] = []
    start = 0
    for row, length in enumerate(lengths):
        if length:
            if blocks and start + length - blocks[-1][0].start <= BLOCK_TOKENS:
                blocks[-1] = (slice(blocks[-1][0].start, start + length), [*blocks[-1][1], row])
            else:
                blocks.append((slice(start, start + length), [row]))
        start += length
    return blocks
