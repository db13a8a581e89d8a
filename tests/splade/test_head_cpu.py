"""Tests of the C++ head against the plain formula in float64, and of the fallback where it cannot be compiled."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread

import pytest
import torch
from test_head import CASES, plain
from torch.utils.weak import WeakTensorKeyDictionary

from utils.splade import kernels
from utils.splade.head import active_terms, splade_head

ROOT = Path(__file__).parents[2]
needs_library = pytest.mark.skipif(
    not kernels.available(),
    reason="NOT RUN: no C++ compiler, or no processor for the kernels, on this machine",
)


def inputs(lengths, vocabulary, size, shift, seed=0):
    """Return random hidden, weight and bias in float32; logits deviate by about sqrt(size) from `shift`."""
    torch.manual_seed(seed)
    bias = torch.randn(vocabulary) + shift
    return torch.randn(sum(lengths), size), torch.randn(vocabulary, size), bias


@pytest.mark.parametrize("lengths", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("vocabulary, size, shift", [(1000, 37, -12.0), (50, 8, 0.0), (3001, 128, -30.0)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_forward_and_gradients_are_those_of_the_plain_formula(
    lengths, vocabulary, size, shift, with_bias, threads, instruction_set
):
    tensors = inputs(lengths, vocabulary, size, shift)
    tensors = tensors if with_bias else (*tensors[:2], None)
    ours = [None if t is None else t.clone().requires_grad_() for t in tensors]
    exact = [None if t is None else t.double().requires_grad_() for t in tensors]
    fused = splade_head(ours[0], lengths, *ours[1:])
    expected = plain(exact[0], lengths, *exact[1:])
    torch.testing.assert_close(fused.double(), expected, rtol=1e-4, atol=1e-4)
    upstream = torch.randn_like(fused)
    fused.backward(upstream)
    expected.backward(upstream.double())
    for tensor, reference in zip(ours, exact):
        if tensor is not None and reference.grad is not None:
            torch.testing.assert_close(tensor.grad.double(), reference.grad, rtol=1e-3, atol=1e-3)


def test_screening_misses_no_active_term_of_a_real_model(tiny, instruction_set):
    texts = ["how do wings make lift", "", "boundary layer " * 90, "a"]
    with torch.inference_mode():
        hidden, lengths = tiny._hidden_states(**tiny.pad([t for t in tiny.tokenize(texts) if t]))
        weight, bias = tiny._projection
        expected = plain(hidden.double(), lengths, weight.double(), bias.double())
    for (terms, weights), row in zip(active_terms(hidden, lengths, weight, bias), expected):
        assert set(row.gt(1e-5).nonzero().flatten().tolist()) <= set(terms.tolist())
        assert (terms[1:] > terms[:-1]).all() and (weights > 0).all()
        torch.testing.assert_close(torch.from_numpy(weights).double(), row[terms.tolist()], rtol=1e-4, atol=1e-5)


@needs_library
def test_bfloat16_inputs_are_computed_in_float32():
    hidden, weight, bias = inputs([20, 30], 400, 64, -10.0)
    rounded = [t.bfloat16() for t in (hidden, weight, bias)]
    weights = splade_head(rounded[0], [20, 30], *rounded[1:])
    assert weights.dtype == torch.float32
    expected = plain(rounded[0].double(), [20, 30], rounded[1].double(), rounded[2].double())
    torch.testing.assert_close(weights.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rounded", ["token", "term"])
def test_the_bound_has_the_rounding_of_both(rounded, instruction_set):
    """One is all codes, the other has one large number, beside which all of its others are rounded to 0."""
    whole, lost = torch.ones(64), torch.full((64,), 0.3)
    whole[0], lost[0] = 0, 127
    token, term = (lost, whole) if rounded == "token" else (whole, lost)
    (terms, weights), *_ = active_terms(token[None], [1], term[None], torch.tensor([-10.0]))
    assert terms.tolist() == [0]
    torch.testing.assert_close(torch.from_numpy(weights), torch.tensor([9.9]).log())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_value_is_not_hidden_by_the_maximum(bad, instruction_set):
    hidden, weight, bias = inputs([3, 4], 100, 8, 0.0)
    hidden[1, 2] = bad
    weights = splade_head(hidden, [3, 4], weight, bias)
    assert weights[0].isnan().all() and weights[1].isfinite().all()
    assert (
        splade_head(hidden[3:], [4], weight.index_fill(0, torch.tensor([7]), bad), bias)[0, 7].isfinite().logical_not()
    )


def test_a_nan_is_not_hidden_by_a_later_token(instruction_set):
    hidden, weight = torch.tensor([[0.0, 1.0], [-1.0, 1.0]]), torch.tensor([[float("inf"), 1.0], [1.0, 1.0]])
    weights = splade_head(hidden, [2], weight, None)  # the products of the first term are NaN and -inf
    assert weights[0, 0].isnan() and weights[0, 1].isfinite()


def test_changed_weights_are_packed_again(instruction_set):
    hidden, weight, bias = inputs([5], 200, 16, -4.0)
    before = splade_head(hidden, [5], weight, bias)
    weight.mul_(-1)
    after = splade_head(hidden, [5], weight, bias)
    expected = plain(hidden.double(), [5], weight.double(), bias.double())
    torch.testing.assert_close(after.double(), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("fused", [True, False])
def test_weights_are_packed_once_after_each_step_of_an_optimizer(packed, fused):
    trained, frozen = torch.nn.Parameter(torch.randn(50, 8)), torch.nn.Parameter(torch.randn(50, 8))
    optimizer = torch.optim.AdamW([trained], lr=0.1, fused=fused)
    for _ in range(3):
        first = kernels.pack(trained)
        assert kernels.pack(trained) is first and kernels.pack(frozen) is kernels.pack(frozen)
        trained.grad = torch.ones_like(trained)
        optimizer.step()
    assert [weight.data_ptr() for weight in packed] == [part.data_ptr() for part in (trained, frozen, trained, trained)]


def test_weights_of_any_layout_and_dtype_are_packed_from_their_rows_in_float32(packed):
    weight = torch.randn(8, 50).bfloat16().T
    assert kernels.pack(weight) is kernels.pack(weight)
    (rows,) = packed
    assert rows.is_contiguous() and rows.dtype == torch.float32 and torch.equal(rows, weight.float())


@needs_library
def test_nothing_is_kept_of_a_weight_that_stands_where_another_stood():
    storage, first = torch.randn(8), torch.nn.Parameter(torch.randn(50, 8))
    for value in (1.0, 2.0):
        second = torch.nn.Parameter(storage)  # the address of the one before, and its version
        assert kernels.keep([first, second], "value", lambda value=value: value) == value


@needs_library
def test_what_is_forgotten_meanwhile_is_returned_all_the_same():
    class Forgotten(list):  # by another thread, while it is compared
        def __eq__(self, other):
            kernels.forget([weight])
            return super().__eq__(other)

    weight = torch.nn.Parameter(torch.randn(50, 8))
    assert kernels.keep([weight], "value", lambda: 1) == 1
    kept = kernels._kept[weight]["value"]
    kept[0] = Forgotten(kept[0])
    assert kernels.keep([weight], "value", lambda: 2) == 1


@needs_library
def test_threads_that_make_the_same_at_once_get_the_same():
    weight, both = torch.nn.Parameter(torch.randn(50, 8)), Barrier(2)

    def make():
        both.wait(60)
        return object()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: kernels.keep([weight], "value", make), range(2))
    assert first is second is kernels.keep([weight], "value", pytest.fail)


@needs_library
def test_what_another_thread_forgets_while_it_is_stored_is_not_kept(monkeypatch):
    weight = torch.nn.Parameter(torch.randn(50, 8))
    forgetting = Thread(target=kernels.forget, args=([weight],))

    class Slow(WeakTensorKeyDictionary):
        def setdefault(self, *pair):
            forgetting.start()
            forgetting.join(0.2)  # it has to wait
            return super().setdefault(*pair)

    monkeypatch.setattr(kernels, "_kept", Slow())
    assert kernels.keep([weight], "value", lambda: 1) == 1
    forgetting.join()
    monkeypatch.setattr(Slow, "setdefault", WeakTensorKeyDictionary.setdefault)
    assert kernels.keep([weight], "value", lambda: 2) == 2


@needs_library
def test_what_is_made_of_weights_that_are_forgotten_meanwhile_is_not_kept():
    weight = torch.nn.Parameter(torch.randn(50, 8))
    assert kernels.keep([weight], "value", lambda: (kernels.forget([weight]), 1)[1]) == 1
    assert kernels.keep([weight], "value", lambda: 2) == 2


@needs_library
@pytest.mark.parametrize("fused", [True, False])
def test_the_head_follows_the_steps_of_an_optimizer(fused):
    hidden, weight, bias = inputs([5, 9], 300, 16, -8.0)
    weight = torch.nn.Parameter(weight)
    optimizer = torch.optim.AdamW([weight], lr=0.3, fused=fused)
    for _ in range(3):
        found = splade_head(hidden, [5, 9], weight, bias)
        expected = plain(hidden.double(), [5, 9], weight.detach().double(), bias.double())
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        optimizer.zero_grad()
        found.sum().backward()
        optimizer.step()


def test_gradients_do_not_depend_on_the_number_of_threads(instruction_set, monkeypatch):
    monkeypatch.setattr(kernels, "PRODUCTS_PER_THREAD", 1)
    before = torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        leaves = [t.requires_grad_() for t in inputs([9, 40, 3], 500, 32, -8.0)]
        results.append(torch.autograd.grad(splade_head(leaves[0], [9, 40, 3], *leaves[1:]).square().sum(), leaves))
    torch.set_num_threads(before)
    for one, two in zip(*results):
        assert torch.equal(one, two)


def test_without_a_compiler_the_torch_head_is_used(tmp_path):
    code = (
        "import torch; from utils.splade import kernels; from utils.splade.head import active_terms\n"
        "(terms, weights), = active_terms(torch.ones(2, 4), [2], 3 * torch.eye(4))\n"
        "print(kernels.available(), terms.tolist(), weights.round(3).astype(str).tolist())"
    )
    environment = os.environ | {"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False [0, 1, 2, 3] ['1.386', '1.386', '1.386', '1.386']", done.stderr
