"""Tests of the fused head against the plain formula, in float64."""

import pytest
import torch

from utils.splade import head as module
from utils.splade.head import splade_head, sum_head


def plain(hidden, lengths, weight, bias):
    """Compute max over tokens of log(1 + relu(h W^T + b)), one text at a time; autograd differentiates it."""
    rows = []
    for tokens in hidden.split(lengths):
        logits = tokens @ weight.T + (0 if bias is None else bias)
        weights = torch.log1p(torch.relu(logits))
        rows.append(weights.max(0).values if len(tokens) else 0 * weight.sum(1))
    return torch.stack(rows)


def inputs(lengths, vocabulary=50, size=8, shift=0.0, seed=0):
    """Return random hidden [tokens, size], weight [vocabulary, size] and bias, in float64; `shift` moves all logits."""
    torch.manual_seed(seed)
    hidden = torch.randn(sum(lengths), size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, size, dtype=torch.float64, requires_grad=True)
    bias = (torch.randn(vocabulary, dtype=torch.float64) + shift).requires_grad_()
    return hidden, weight, bias


CASES = {
    "ragged": [3, 17, 1, 9],
    "one token each": [1, 1, 1],
    "an empty text between": [4, 0, 5],
    "only empty texts": [0, 0],
    "longer than a block": [40, 300, 2],
}


@pytest.mark.parametrize("lengths", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("path", ["_fill_from_blocks", "_fill_from_padded"])
def test_forward_and_gradients_are_those_of_the_plain_formula(lengths, with_bias, path, monkeypatch):
    monkeypatch.setattr(module, "_fill_from_blocks", getattr(module, path))  # runs the accelerators' path on the CPU
    monkeypatch.setattr(module, "TILE_TERMS", 16)  # several tiles, the last one narrower
    hidden, weight, bias = inputs(lengths)
    leaves = [hidden, weight] + ([bias] if with_bias else [])
    bias = bias if with_bias else None
    fused, expected = splade_head(hidden, lengths, weight, bias), plain(hidden, lengths, weight, bias)
    torch.testing.assert_close(fused, expected)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(fused, leaves, upstream)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, leaves, upstream, allow_unused=True)):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if reference is None else reference)


@pytest.mark.parametrize("lengths", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("logarithms", [1, 2])
@pytest.mark.parametrize("path", ["_fill_from_blocks", "_fill_from_padded"])
def test_sums_are_those_of_the_plain_formula(lengths, with_bias, logarithms, path, monkeypatch):
    monkeypatch.setattr(module, "_fill_from_blocks", getattr(module, path))
    monkeypatch.setattr(module, "TILE_TERMS", 16)
    hidden, weight, bias = inputs(lengths)
    expected = []
    for tokens in hidden.split(lengths):
        weights = (tokens @ weight.T + (bias if with_bias else 0)).relu()
        for _ in range(logarithms):
            weights = torch.log(1 + weights)
        expected.append(weights.sum(0))
    summed = sum_head(hidden, lengths, weight, bias if with_bias else None, logarithms)
    torch.testing.assert_close(summed, torch.stack(expected))
    assert not summed.requires_grad


def test_sums_of_bfloat16_products_are_taken_in_float32():
    hidden, weight, bias = inputs([300], vocabulary=100, size=64)
    exact = sum_head(hidden, [300], weight, bias)
    rounded = sum_head(hidden.bfloat16(), [300], weight.float(), bias.float())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=0.003, atol=0.003)


def test_negative_logits_give_zero_weights_and_zero_gradients():
    hidden, weight, bias = inputs([5, 2], shift=-100.0)
    weights = splade_head(hidden, [5, 2], weight, bias)
    assert not weights.any()
    for gradient in torch.autograd.grad(weights.sum(), [hidden, weight, bias]):
        assert not gradient.any()


def test_gradcheck():
    hidden, weight, bias = inputs([4, 1, 0, 6], vocabulary=11, size=3, seed=3)
    assert torch.autograd.gradcheck(lambda h, w, b: splade_head(h, [4, 1, 0, 6], w, b), (hidden, weight, bias))


def test_gradient_of_a_projection_tied_to_the_embedding_sums_both_uses():
    torch.manual_seed(1)
    table = torch.randn(30, 6, dtype=torch.float64, requires_grad=True)
    ids = torch.randint(30, (12,))
    mixing = torch.randn(6, 6, dtype=torch.float64)
    results = [
        torch.autograd.grad(head(torch.tanh(table[ids] @ mixing), [7, 5], table, None).square().sum(), table)[0]
        for head in (splade_head, plain)
    ]
    torch.testing.assert_close(*results)


def test_bfloat16_stays_within_its_rounding_error():
    hidden, weight, bias = inputs([20, 30], vocabulary=400, size=64)
    exact = plain(hidden, [20, 30], weight, bias)
    rounded = splade_head(hidden.bfloat16(), [20, 30], weight.float(), bias.float())
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded.double(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_no_tensor_of_batch_by_tokens_by_vocabulary_is_made(pooling):
    lengths, vocabulary = [64] * 16, 20_000
    hidden, weight, _ = inputs(lengths, vocabulary=vocabulary)
    largest = 0

    class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with LargestTensor():
        if pooling == "max":
            splade_head(hidden, lengths, weight).sum().backward()
        else:
            sum_head(hidden, lengths, weight)
    assert largest <= len(lengths) * vocabulary * 4 < sum(lengths) * vocabulary / 10
