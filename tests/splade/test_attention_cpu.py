"""Tests of attention in C++ and of its gradient, against the formula in float64."""

import pytest
import torch
from test_head_cpu import needs_library

from utils.splade import kernels, packing
from utils.splade.attention_cpu import NativeAttention

# Lengths of texts, heads, size of a head. A block of queries has at most 192 tokens, 96 on AVX2.
CASES = {
    "short": ([5, 3, 0, 33, 1], 2, 64),
    "blocks": ([200, 413], 3, 20),
    "one": ([1], 1, 1),
    "odd": ([31, 97], 2, 7),
}


def inputs(tokens, heads, size):
    torch.manual_seed(0)
    return [2 * torch.randn(tokens, heads, size) for _ in range(3)], torch.randn(tokens, heads, size)


def formula(query, key, value, lengths, scale):
    results = []
    for q, k, v in zip(*(part.transpose(0, 1).split(lengths, dim=1) for part in (query, key, value))):
        results.append((q @ k.transpose(1, 2) * scale).softmax(-1) @ v)
    return torch.cat(results, dim=1).transpose(0, 1)


@pytest.mark.parametrize("lengths, heads, size", CASES.values(), ids=CASES.keys())
def test_attention_and_its_gradients_are_those_of_the_formula(lengths, heads, size, threads, instruction_set):
    tensors, upstream = inputs(sum(lengths), heads, size)
    ours = [tensor.requires_grad_() for tensor in tensors]
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    result, expected = NativeAttention.apply(*ours, lengths, 0.3), formula(*exact, lengths, 0.3)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(result, ours, upstream)
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, exact, upstream.double())):
        torch.testing.assert_close(gradient.double(), reference, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_kept_as_it_is_and_computed_in_float32(instruction_set):
    tensors, upstream = inputs(60, 2, 16)
    ours = [tensor.bfloat16().requires_grad_() for tensor in tensors]
    exact = [tensor.detach().double().requires_grad_() for tensor in ours]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        result = NativeAttention.apply(*ours, [20, 40], 0.3)
    assert [tensor.dtype for tensor in kept] == [torch.bfloat16] * 3 + [torch.float32] * 2
    expected = formula(*exact, [20, 40], 0.3)
    torch.testing.assert_close(result.double(), expected, rtol=5e-3, atol=1e-5)
    gradients = torch.autograd.grad(result, ours, upstream.bfloat16())
    for gradient, reference in zip(gradients, torch.autograd.grad(expected, exact, upstream.bfloat16().double())):
        torch.testing.assert_close(gradient.double(), reference, rtol=5e-3, atol=1e-4)


def test_each_gradient_has_the_type_of_its_input(instruction_set):
    tensors, upstream = inputs(60, 2, 16)
    for own in range(3):
        ours = [t.bfloat16() if i == own else t for i, t in enumerate(tensors)]
        exact = [t.detach().double().requires_grad_() for t in ours]
        ours = [t.detach().requires_grad_() for t in ours]
        upstream = upstream.bfloat16()
        result = NativeAttention.apply(*ours, [20, 40], 0.3)
        gradients = torch.autograd.grad(result, ours, upstream.to(result.dtype))
        references = torch.autograd.grad(formula(*exact, [20, 40], 0.3), exact, upstream.double())
        for tensor, gradient, reference in zip(ours, gradients, references):
            rounding = 5e-3 if tensor.dtype == torch.bfloat16 else 1e-4
            assert gradient.dtype == tensor.dtype
            torch.testing.assert_close(gradient.double(), reference, rtol=rounding, atol=1e-4)


def test_large_scores_overflow_nothing(instruction_set):
    tensors, upstream = inputs(40, 1, 16)
    query, key, value = [(tensor * 100).requires_grad_() for tensor in tensors]
    result = NativeAttention.apply(query, key, value, [40], 1.0)
    winners = (query[:, 0] @ key[:, 0].T).argmax(1)
    torch.testing.assert_close(result, value[winners])  # the softmax is one token's
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(result, (query, key, value), upstream))


def test_a_nan_stays_within_its_text(instruction_set):
    (query, key, value), _ = inputs(60, 2, 16)
    query[25, 1, 3] = key[50, 0, 0] = float("nan")
    result = NativeAttention.apply(query, key, value, [20, 20, 20], 0.25)
    bad = result.isnan().flatten(1).any(1)
    assert bad[25] and bad[40:].all() and not bad[:20].any()
    assert result[20:25].isfinite().all() and result[26:40].isfinite().all()


def test_gradients_do_not_depend_on_the_number_of_threads(instruction_set, monkeypatch):
    monkeypatch.setattr(kernels, "PRODUCTS_PER_THREAD", 1)
    before = torch.get_num_threads()
    tensors, upstream = inputs(250, 2, 24)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        results.append(torch.autograd.grad(NativeAttention.apply(*leaves, [230, 20], 0.2), leaves, upstream))
    torch.set_num_threads(before)
    for one, two in zip(*results):
        assert torch.equal(one, two)


@needs_library
@pytest.mark.parametrize("scaling", [None, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_packed_texts_attend_as_torch_does(scaling, dtype, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 30, 16, dtype=dtype) for _ in range(3))

    def run():
        return packing._attend(torch.nn.Module(), query, key, value, None, [17, 13], scaling=scaling)[0]

    calls, call = [], kernels.call
    monkeypatch.setattr(kernels, "call", lambda name, *a, **k: (calls.append(name), call(name, *a, **k))[1])
    ours = run()
    assert calls == ([] if dtype == torch.float64 else ["attention"])
    monkeypatch.setenv("SPLADE_ISA", "torch")
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, run(), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-5)


@needs_library
def test_dropout_of_attention_is_torchs():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 30, 16).unbind()
    without, dropped = (
        packing._attend(torch.nn.Module(), query, key, value, None, [17, 13], dropout=p)[0] for p in (0.0, 0.5)
    )
    assert not torch.allclose(without, dropped, atol=0.1)


@pytest.mark.parametrize("key_heads, value_size, lengths", [(1, 16, [17, 13]), (2, 8, [17, 13]), (2, 16, [17, 14])])
def test_nothing_is_read_behind_the_tensors(key_heads, value_size, lengths):
    query, key, value = torch.zeros(30, 2, 16), torch.zeros(30, key_heads, 16), torch.zeros(30, key_heads, value_size)
    with pytest.raises(ValueError, match="must have one shape"):
        NativeAttention.apply(query, key, value, lengths, 0.25)


@needs_library
def test_values_of_another_size_are_left_to_torch(monkeypatch):
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 2, 30, 16), torch.randn(1, 2, 30, 16), torch.randn(1, 2, 30, 8)

    def run():
        return packing._attend(torch.nn.Module(), query, key, value, None, [17, 13])[0]

    ours = run()
    monkeypatch.setenv("SPLADE_ISA", "torch")
    assert torch.equal(ours, run())
