"""Tests of the directions that terms are screened in: they change no vector, whatever the texts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from test_head import plain
from test_head_cpu import needs_library

from utils.splade import directions as module
from utils.splade import kernels
from utils.splade.directions import Directions, Survey
from utils.splade.head import splade_head
from utils.splade.head_cpu import active_terms

ROOT = Path(__file__).parents[2]
LENGTHS = [100, 0, 300, 1, 200]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Directions are chosen by the first batch."""
    monkeypatch.setattr(module, "NEEDED_TOKENS", 1)


def inputs(size=64, vocabulary=3001, smallest=0.03, lengths=LENGTHS, active=0.02):
    """Return hidden, weight and bias: states and terms reach from 1 down to `smallest` in the directions of a random
    basis; about a share `active` of the terms is active for the longest texts."""
    torch.manual_seed(0)
    spread = torch.logspace(0, torch.tensor(smallest).log10().item(), size)
    basis = torch.linalg.qr(torch.randn(size, size)).Q
    hidden = torch.randn(sum(lengths), size) * spread @ basis + torch.randn(size)
    weight = torch.randn(vocabulary, size) * spread @ basis
    bias = torch.randn(vocabulary) / 10
    return hidden, weight, bias - (hidden @ weight.T + bias).amax(0).quantile(1 - active)


def survey_of(weight, bias) -> Survey:
    return kernels.keep([weight] if bias is None else [weight, bias], "survey", pytest.fail)


def directions_of(hidden, lengths, weight, bias) -> Directions | None:
    """Return what has been chosen for a head, by these states if by none before."""
    active_terms(hidden, lengths, weight, bias)
    return survey_of(weight, bias)._directions


def without_directions(hidden, lengths, weight, bias):
    return active_terms(hidden, lengths, weight, bias, torch.zeros(len(lengths), len(weight)))


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size, vocabulary", [(37, 500), (64, 3001), (128, 1000)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_terms_and_weights_are_those_of_all_dimensions(size, vocabulary, with_bias, instruction_set, threads):
    hidden, weight, bias = inputs(size, vocabulary)
    if not with_bias:  # the same for all terms, and a dimension
        weight[:, 0] = 1
        hidden[:, 0] = 0
        hidden[:, 0] = -(hidden @ weight.T).amax(0).quantile(0.98)
        bias = None
    head = hidden, LENGTHS, weight, bias
    expected = without_directions(*head)
    assert expected.offsets[1] > expected.offsets[0]
    chosen = directions_of(*head)
    assert chosen.count < size
    found = active_terms(*head)
    assert_same(found, expected)
    dense = plain(hidden.double(), LENGTHS, weight.double(), None if bias is None else bias.double())
    ours = torch.zeros(len(LENGTHS), vocabulary)
    text = torch.repeat_interleave(torch.arange(len(LENGTHS)), found.offsets.diff())
    ours[text, found.terms.long()] = found.weights
    torch.testing.assert_close(ours.double(), dense, rtol=1e-4, atol=1e-4)


def test_terms_near_the_threshold_are_found(instruction_set, monkeypatch):
    monkeypatch.setattr(module, "WORTHWHILE", 9)
    monkeypatch.setattr(Survey, "report", lambda *_: None)
    hidden, weight, bias = inputs(vocabulary=20_000, active=0.3)
    expected = without_directions(hidden, LENGTHS, weight, bias)
    assert directions_of(hidden, LENGTHS, weight, bias).count < 64
    assert_same(active_terms(hidden, LENGTHS, weight, bias), expected)


@needs_library
def test_first_directions_leave_few_of_the_terms(monkeypatch):
    head = inputs()
    hidden, weight, bias = head
    shares = []
    monkeypatch.setattr(Survey, "report", lambda self, used, share: shares.append(share))
    active = len(without_directions(hidden, LENGTHS, weight, bias).terms) / (len(LENGTHS) * len(weight))
    active_terms(hidden, LENGTHS, weight, bias)
    active_terms(hidden, LENGTHS, weight, bias)
    assert active <= shares[-1] < 10 * active < 0.2


@needs_library
def test_there_are_none_where_all_directions_are_alike():
    hidden, weight, bias = inputs(smallest=1)
    assert directions_of(hidden, LENGTHS, weight, bias) is None
    survey = survey_of(weight, bias)
    active_terms(hidden, LENGTHS, weight, bias)
    assert survey_of(weight, bias) is survey and survey._tokens == sum(LENGTHS)  # nothing is surveyed any more


@needs_library
def test_other_texts_are_surveyed_anew_and_miss_nothing():
    hidden, weight, bias = inputs()
    first = directions_of(hidden, LENGTHS, weight, bias)
    others = hidden.flip(1) * 2  # large where the first ones are small
    expected = without_directions(others, LENGTHS, weight, bias)
    assert_same(active_terms(others, LENGTHS, weight, bias), expected)
    survey = survey_of(weight, bias)
    assert survey._directions is first  # one batch is no reason yet
    for _ in range(module.MEAN_BATCHES):
        if survey._directions:
            assert_same(active_terms(others, LENGTHS, weight, bias), expected)
    assert first is not None and survey._directions is None and survey._needed == 2 * hidden.shape[1]
    assert_same(active_terms(others, LENGTHS, weight, bias), expected)


@needs_library
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_extreme_states_and_terms_are_none_to_choose_by(bad):
    hidden, weight, bias = inputs()
    weight[7, 3] = bad
    expected = without_directions(hidden, LENGTHS, weight, bias)
    active_terms(hidden, LENGTHS, weight, bias)
    assert_same(
        [t.nan_to_num() for t in active_terms(hidden, LENGTHS, weight, bias)], [t.nan_to_num() for t in expected]
    )
    hidden, weight, bias = inputs()
    broken = hidden.clone()
    broken[5, 2] = bad
    assert directions_of(broken, LENGTHS, weight, bias) is None
    expected = without_directions(hidden, LENGTHS, weight, bias)
    for _ in range(2):
        assert_same(active_terms(hidden, LENGTHS, weight, bias), expected)


@needs_library
def test_states_that_are_all_the_same_are_no_trouble():
    hidden, weight, bias = inputs()
    hidden = hidden[:1].expand_as(hidden)
    expected = without_directions(hidden, LENGTHS, weight, bias)
    for _ in range(3):
        assert_same(active_terms(hidden, LENGTHS, weight, bias), expected)


@needs_library
@pytest.mark.parametrize("rank, mean", [(0, 0), (1, 0), (5, 1), (50, 1)])
def test_terms_of_fewer_dimensions_than_states_are_no_trouble(rank, mean):
    hidden, weight, bias = inputs()
    weight = torch.randn(len(weight), rank) @ weight[:rank] + mean
    expected = without_directions(hidden, LENGTHS, weight, bias)
    for _ in range(3):
        assert_same(active_terms(hidden, LENGTHS, weight, bias), expected)


@needs_library
@pytest.mark.parametrize("lengths", [[], [0], [1]])
def test_no_text_is_too_short(lengths):
    hidden, weight, bias = inputs()
    assert directions_of(hidden, LENGTHS, weight, bias) is not None
    head = hidden[: sum(lengths)], lengths, weight, bias
    assert_same(active_terms(*head), without_directions(*head))


@needs_library
def test_autocast_does_not_round_what_terms_are_screened_by():
    hidden, weight, bias = inputs()
    expected = without_directions(hidden, LENGTHS, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        chosen = directions_of(hidden, LENGTHS, weight, bias)
        found = active_terms(hidden, LENGTHS, weight, bias)
    assert all(part.dtype != torch.bfloat16 for part in chosen.tensors)
    assert_same(found, expected)


@needs_library
def test_neither_training_nor_a_single_query_chooses_directions():
    hidden, weight, bias = inputs()
    weight.requires_grad_()
    splade_head(hidden, LENGTHS, weight, bias).sum().backward()
    active_terms(hidden[:20], [20], weight, bias)
    assert survey_of(weight, bias)._tokens == 0
    assert directions_of(hidden, LENGTHS, weight, bias) is not None  # and what is chosen has no gradient
    assert not any(part.requires_grad for part in survey_of(weight, bias)._directions.tensors)


@needs_library
def test_changed_weights_have_directions_of_their_own():
    hidden, weight, bias = inputs()
    before = directions_of(hidden, LENGTHS, weight, bias)
    weight.mul_(-1)
    expected = without_directions(hidden, LENGTHS, weight, bias)
    assert directions_of(hidden, LENGTHS, weight, bias) is not before
    assert_same(active_terms(hidden, LENGTHS, weight, bias), expected)


@needs_library
def test_states_of_inference_mode_and_of_others_are_surveyed_together(monkeypatch):
    monkeypatch.setattr(module, "NEEDED_TOKENS", 2 * sum(LENGTHS) // 64 + 1)
    monkeypatch.setattr(module, "SURVEYED", 1)
    hidden, weight, bias = inputs()
    with torch.inference_mode():
        assert directions_of(hidden, LENGTHS, weight, bias) is None
    assert directions_of(hidden, LENGTHS, weight, bias) is None
    assert directions_of(hidden, LENGTHS, weight, bias) is not None


@needs_library
def test_threads_choose_once(monkeypatch):
    hidden, weight, bias = inputs()
    expected = without_directions(hidden, LENGTHS, weight, bias)
    chosen, choose = [], module.choose_directions
    monkeypatch.setattr(module, "choose_directions", lambda *parts: chosen.append(choose(*parts)) or chosen[-1])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: active_terms(hidden, LENGTHS, weight, bias), range(16)):
            assert_same(found, expected)
    assert len(chosen) == 1


@needs_library
def test_a_real_model_has_directions_and_the_same_vectors(tiny, monkeypatch):
    texts = [part for part in (ROOT / "README.md").read_text().split("\n\n") if len(part) > 200]
    with torch.inference_mode():
        kernels.forget(tiny._projection)
        monkeypatch.setattr(module, "NEEDED_TOKENS", 1 << 40)
        expected = tiny.encode(texts)
        kernels.forget(tiny._projection)
        monkeypatch.setattr(module, "NEEDED_TOKENS", 8)
        tiny.encode(2 * texts)
        found = tiny.encode(texts)
        assert survey_of(*tiny._kept_projection)._directions is not None
        kernels.forget(tiny._projection)
    for ours, theirs in zip(found, expected):
        assert ours.indices.tolist() == theirs.indices.tolist() and ours.values.tolist() == theirs.values.tolist()
