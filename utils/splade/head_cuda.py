"""The SPLADE head on CUDA, in Triton.

Forward: one program multiplies a text's tokens with a tile of the vocabulary, block of tokens by block, and keeps the
running maximum and its token in registers; only [texts, vocabulary] is ever written. Texts are packed, so a short one
costs no more than its own tokens, rounded up to a block.

Backward: the active terms are listed once, then sorted by the token of their maximum and by the term. Either gradient
is a sum of rows over such a list (a token's gradient sums projection rows, a term's sums hidden states), computed by
one kernel in which each program owns a row: no atomics, so results are deterministic.
"""

import functools
import warnings

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # no Triton for this system; the tiled head of head.py takes over
    triton = None


@functools.cache
def available(device: torch.device) -> bool:
    """Return whether the kernels run on this CUDA device; Triton needs a C compiler there."""
    if triton is None:
        return False
    try:
        TritonHead.apply(torch.ones(1, 16, device=device), [1], torch.ones(16, 16, device=device), None)
    except Exception as error:  # a compiler or driver may fail in any way; the tiled head takes over
        warnings.warn(f"the SPLADE head runs without its Triton kernels, and slower: {error}", stacklevel=2)
        return False
    return True


class TritonHead(torch.autograd.Function):
    """The head in Triton: (hidden, lengths, weight, bias) -> [batch, vocabulary] float32; see `head.splade_head`."""

    @staticmethod
    def forward(ctx, hidden, lengths, weight, bias):
        hidden = hidden.contiguous()
        ends = torch.tensor(lengths, dtype=torch.long).cumsum(0)
        starts, ends = torch.stack([ends - torch.tensor(lengths), ends]).to(hidden.device)
        weights, winners = weigh_terms(
            hidden, starts, ends, max(lengths, default=0), weight, bias, any(ctx.needs_input_grad)
        )
        ctx.save_for_backward(hidden, weight, starts, weights, winners)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, weight, starts, weights, winners = ctx.saved_tensors
        rows, terms = weights.nonzero(as_tuple=True)  # (K,) active terms of all texts
        # d log(1 + x) / dx = 1 / (1 + x) = exp(-log(1 + x))
        slopes = grad[rows, terms].float() * torch.exp(-weights[rows, terms])
        tokens = starts[rows] + winners[rows, terms]
        grad_hidden = _sum_rows(weight, terms, tokens, slopes, torch.empty_like(hidden))
        grad_weight = _sum_rows(hidden, tokens, terms, slopes, torch.empty_like(weight))
        grad_bias = None
        if ctx.bias_dtype is not None:
            dense = torch.zeros_like(weights)
            dense[rows, terms] = slopes
            grad_bias = dense.sum(0).to(ctx.bias_dtype)
        return grad_hidden, None, grad_weight, grad_bias


def weigh_terms(
    hidden: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    with_winners: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute the term weights of texts whose tokens stand anywhere in `hidden`, in the order of the texts. Nothing
    here waits for the device, so it can be captured in a CUDA graph.

    Args:
        hidden: [tokens, hidden], contiguous.
        starts, ends: [batch] where each text's tokens begin and end; what lies between texts is left out.
        longest: most tokens of a text.
        weight, bias: as in `head.splade_head`.

    Returns:
        [batch, vocabulary] float32 weights; [batch, vocabulary] int32 places in the texts of the tokens that they come
        from, or None without `with_winners`.
    """
    shape = len(starts), len(weight)
    weights = torch.empty(shape, dtype=torch.float32, device=hidden.device)
    winners = torch.empty(shape, dtype=torch.int32, device=hidden.device) if with_winners else None
    if weights.numel():
        projection = weight.to(hidden.dtype).contiguous()
        blocks = _blocks(longest, hidden)
        grid = len(starts), triton.cdiv(len(weight), blocks["TERMS"])
        with torch.cuda.device_of(hidden):  # Triton launches on the current device
            _forward_kernel[grid](
                hidden,
                starts,
                ends,
                projection,
                projection if bias is None else bias.contiguous(),
                _nan_for_nonfinite_texts(hidden, starts, ends),
                weights,
                weights if winners is None else winners,
                *weight.shape,
                HAS_WINNERS=with_winners,
                HAS_BIAS=bias is not None,
                PRECISION="tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
                **blocks,
            )
    return weights, winners


def _nan_for_nonfinite_texts(hidden: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Return [batch] zeros, with NaN for a text that has a non-finite state; it is added after the maximum, which would
    hide such a state."""
    places = torch.arange(len(hidden), device=hidden.device)
    rows = torch.searchsorted(ends, places, right=True).clamp(max=len(ends) - 1)
    inside = (places >= starts[rows]) & (places < ends[rows])
    zero_or_nan = (hidden.float().sum(1) * 0).where(inside, 0)  # (tokens,)
    return torch.zeros(len(ends), device=hidden.device).index_add_(0, rows, zero_or_nan)


def _blocks(longest: int, hidden: torch.Tensor) -> dict[str, int]:
    """Return a program's block sizes for texts of at most `longest` tokens; large ones need an A100's shared memory."""
    shared = torch.cuda.get_device_properties(hidden.device).shared_memory_per_block_optin if hidden.is_cuda else 0
    tokens = min(128 if shared >= 96 * 1024 else 64, max(16, triton.next_power_of_2(longest)))
    return {
        "TOKENS": tokens,
        "TERMS": 128,
        "DEPTH": 32 if hidden.dtype == torch.float32 else 64,
        "num_warps": 4,
        "num_stages": 3 if shared >= 160 * 1024 else 2,
    }


def _sum_rows(
    table: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor, scales: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    """Set out[t] to the sum of scales[i] * table[sources[i]] over all i with targets[i] == t, for every row t."""
    targets, order = targets.sort(stable=True)
    borders = torch.searchsorted(targets, torch.arange(len(out) + 1, device=out.device))
    size = out.shape[1]
    if out.numel():
        block = min(1024, triton.next_power_of_2(size))
        grid = len(out), triton.cdiv(size, block)
        with torch.cuda.device_of(out):
            _sum_rows_kernel[grid](table.contiguous(), sources[order], scales[order], borders, out, size, BLOCK=block)
    return out


if triton is not None:

    @triton.jit
    def _forward_kernel(
        hidden,  # [tokens, size]
        starts,  # [texts]
        ends,  # [texts]
        weight,  # [vocabulary, size], in hidden's dtype
        bias,  # [vocabulary]
        zero_or_nan,  # [texts], NaN for a text with a non-finite state
        weights,  # [texts, vocabulary] out
        winners,  # [texts, vocabulary] out, if HAS_WINNERS
        vocabulary,
        size,
        HAS_WINNERS: tl.constexpr,
        HAS_BIAS: tl.constexpr,
        PRECISION: tl.constexpr,
        TOKENS: tl.constexpr,
        TERMS: tl.constexpr,
        DEPTH: tl.constexpr,
    ):
        # Neighboring programs take different texts and the same tile of the vocabulary, which stays in the L2 cache.
        text = tl.program_id(0)
        terms = tl.program_id(1) * TERMS + tl.arange(0, TERMS)
        inside = terms < vocabulary
        begin = tl.load(starts + text)
        end = tl.load(ends + text)
        columns = weight + terms.to(tl.int64)[None, :] * size
        best = tl.full([TERMS], float("-inf"), tl.float32)
        winner = tl.zeros([TERMS], tl.int32)
        for first in range(begin, end, TOKENS):
            tokens = first + tl.arange(0, TOKENS)
            present = tokens < end
            rows = hidden + tokens.to(tl.int64)[:, None] * size
            product = tl.zeros([TOKENS, TERMS], tl.float32)
            for depth in range(0, size, DEPTH):
                dims = depth + tl.arange(0, DEPTH)
                a = tl.load(rows + dims[None, :], mask=present[:, None] & (dims < size)[None, :], other=0.0)
                b = tl.load(columns + dims[:, None], mask=inside[None, :] & (dims < size)[:, None], other=0.0)
                product = tl.dot(a, b, product, input_precision=PRECISION)
            product = tl.where(present[:, None], product, float("-inf"))
            top, place = tl.max(product, 0, return_indices=True)
            larger = top > best
            winner = tl.where(larger, (first - begin).to(tl.int32) + place, winner)
            best = tl.where(larger, top, best)
        logit = best + tl.load(zero_or_nan + text)
        if HAS_BIAS:
            logit += tl.load(bias + terms, mask=inside, other=0.0).to(tl.float32)
        logit = tl.where(logit <= 0, 0.0, logit)  # NaN stays
        # log(1 + x), with a correction for the rounding of 1 + x (Kahan's form)
        one_plus = 1.0 + logit
        value = tl.where(one_plus == 1.0, logit, tl.log(one_plus) * (logit / (one_plus - 1.0)))
        at = text.to(tl.int64) * vocabulary + terms
        tl.store(weights + at, value, mask=inside)
        if HAS_WINNERS:
            tl.store(winners + at, winner, mask=inside)

    @triton.jit
    def _sum_rows_kernel(table, sources, scales, borders, out, size, BLOCK: tl.constexpr):
        target = tl.program_id(0).to(tl.int64)
        dims = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = dims < size
        total = tl.zeros([BLOCK], tl.float32)
        for i in range(tl.load(borders + target), tl.load(borders + target + 1)):
            row = tl.load(table + tl.load(sources + i) * size + dims, mask=inside, other=0.0)
            total += tl.load(scales + i) * row.to(tl.float32)
        tl.store(out + target * size + dims, total, mask=inside)
