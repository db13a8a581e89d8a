"""Tests of the Triton kernels against the plain formula in float64, on a GPU or else in Triton's interpreter.

The interpreter runs the same code on the CPU; it tests neither the kernels' speed nor their compilation.
"""

import contextlib

import pytest
import torch
from test_head import CASES, plain
from test_head_cpu import inputs

from utils.splade import head_cuda as module

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [
    pytest.mark.skipif(module.triton is None, reason="NOT RUN: no Triton for this system"),
    pytest.mark.filterwarnings("ignore:.*encountered in divide:RuntimeWarning"),  # from a branch not taken
]


def head(hidden, lengths, weight, bias):
    return module.TritonHead.apply(hidden, lengths, weight, bias)


@pytest.mark.parametrize("lengths", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("vocabulary, size, shift", [(300, 37, -8.0), (50, 8, 0.0)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_forward_and_gradients_are_those_of_the_plain_formula(lengths, vocabulary, size, shift, with_bias):
    tensors = inputs(lengths, vocabulary, size, shift)
    tensors = tensors if with_bias else (*tensors[:2], None)
    ours = [None if t is None else t.to(DEVICE).requires_grad_() for t in tensors]
    exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
    fused = head(ours[0], lengths, *ours[1:])
    expected = plain(exact[0], lengths, *exact[1:])
    torch.testing.assert_close(fused.double().cpu(), expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn(fused.shape)
    fused.backward(upstream.to(DEVICE))
    expected.backward(upstream.double())
    for tensor, reference in zip(ours, exact):
        if tensor is not None and reference.grad is not None:
            torch.testing.assert_close(tensor.grad.double().cpu(), reference.grad, rtol=1e-3, atol=1e-3)


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch):
    current, launched = [], []

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(tensor.device)
        yield
        current.pop()

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launched.append((current[-1:], arguments[0].device))

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(module, "_forward_kernel", Kernel())
    monkeypatch.setattr(module, "_sum_rows_kernel", Kernel())
    hidden, weight, bias = (t.to(DEVICE).requires_grad_() for t in inputs([3, 4], 100, 8, 0.0))
    head(hidden, [3, 4], weight, bias).sum().backward()
    assert len(launched) == 3 and all(current == [device] for current, device in launched)


on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="NOT RUN: no GPU (Triton's interpreter has no bfloat16 product)")


@pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=on_gpu), torch.float16])
def test_half_precision_inputs_are_summed_in_float32(dtype):
    hidden, weight, bias = inputs([20, 150], 200, 64, -10.0)
    rounded = hidden.to(DEVICE, dtype).requires_grad_()
    weights = head(rounded, [20, 150], weight.to(DEVICE), bias.to(DEVICE))
    assert weights.dtype == torch.float32
    expected = plain(rounded.detach().double().cpu(), [20, 150], weight.to(dtype).double(), bias.double())
    torch.testing.assert_close(weights.double().cpu(), expected, rtol=1e-4, atol=1e-4)
    weights.sum().backward()
    assert rounded.grad.dtype == dtype and rounded.grad.isfinite().all()


def test_a_nan_is_not_hidden_by_the_maximum():
    hidden, weight, bias = (t.to(DEVICE) for t in inputs([3, 4], 100, 8, 0.0))
    hidden[1, 2] = float("nan")
    weights = head(hidden, [3, 4], weight, bias)
    assert weights[0].isnan().all() and weights[1].isfinite().all()


@on_gpu
def test_compiled_kernels_are_available_on_a_gpu():
    assert module.available(torch.device(DEVICE))
