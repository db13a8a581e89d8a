"""Signals of a shift, their permutation tests, and how often these are wrong."""

import json
import random

import numpy as np
import pytest
from conftest import ROOT

from utils.evaluation.drift import CHANCE
from utils.evaluation.shift import GainLoss, MeanRise, NewWords, TermShift, count_words, find_shifts

SUBJECTS = ("covidqa", "gitbugs", "awsdocs")


def marks(*columns):
    return np.array(columns, float).T


def queries(subject):
    lines = (ROOT / "benchmarks" / "model_queries" / f"{subject}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["query"] for line in lines]


def is_shift(earlier, new, tokenizer):
    counts = count_words([*earlier, *new], tokenizer)
    signals = [MeanRise("split", counts.split_shares()), NewWords(counts), TermShift(counts)]
    return min(finding.adjusted_p for finding in find_shifts(signals, [len(new)] * 3, CHANCE)) < CHANCE


def test_words_are_shares_of_their_unit_and_split_by_the_tokenizer(tiny):
    counts = count_words(["Pump the pump", "", "the quadcopter, pump"], tiny.tokenizer)
    assert counts.words == ["pump", "the", "quadcopter"]
    np.testing.assert_allclose(counts.shares.toarray(), [[2 / 3, 1 / 3, 0], [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    assert counts.pieces[:2].tolist() == [1, 1] and counts.pieces[2] > 1
    np.testing.assert_allclose(counts.split_shares(), [0, 0, 1 / 3])
    pump = tiny.tokenizer.convert_tokens_to_ids("pump")
    assert counts.terms[2, pump] == pytest.approx(1 / (2 + counts.pieces[2]))
    assert counts.risen(2, 2) == ["quadcopter", "the"] and counts.take(np.array([2])).shares.shape == (1, 3)


def test_the_divergence_of_terms_is_one_bit_between_strangers_and_none_between_equals(tiny):
    signal = TermShift(count_words(["red apple", "blue sea", "red apple", "apple apple"], tiny.tokenizer))
    values = signal.values(marks([0, 1, 0, 0], [0, 0, 1, 0]))
    assert values[0] == pytest.approx(1.0)
    # Means: 1/2 red and apple, against 1/6 red, 1/2 apple, 1/6 blue, 1/6 sea.
    means = np.array([[1 / 2, 1 / 2, 0, 0], [1 / 6, 1 / 2, 1 / 6, 1 / 6]])

    def entropy(shares):
        return -sum(share * np.log2(share) for share in shares if share)

    assert values[1] == pytest.approx(entropy(means.mean(0)) - np.mean([entropy(row) for row in means]), abs=1e-6)


def test_words_are_new_that_no_earlier_unit_has(tiny):
    counts = count_words(["red apple", "blue sea blue sea", "red sea", "blue whale"], tiny.tokenizer)
    values = NewWords(counts).values(marks([0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]))
    assert values.tolist() == pytest.approx([(1 / 2 + 1) / 2, 1 / 2, (1 + 1 / 2) / 2])


def test_a_rise_is_the_difference_of_means():
    signal = MeanRise("name", np.array([1.0, 2.0, 3.0, 10.0]))
    assert signal.values(marks([0, 0, 0, 1], [1, 1, 0, 0])).tolist() == [8.0, -5.0]
    assert signal.sides(np.array([0, 0, 0, 1])) == (2.0, 10.0)


def test_what_tuning_gains_is_measured_within_either_side():
    rng = np.random.default_rng(0)
    tuned, untuned = rng.normal(size=(2, 30, 30))
    new = (np.arange(30) >= 18).astype(float)

    def ndcg(scores, query):
        rank = 1 + sum(scores[query, d] > scores[query, query] for d in range(30) if new[d] == new[query])
        return 1 / np.log2(1 + rank) if rank <= 10 else 0.0

    gains = np.array([ndcg(tuned, query) - ndcg(untuned, query) for query in range(30)])
    signal = GainLoss((tuned, untuned))
    np.testing.assert_allclose(signal.gains(new[:, None])[:, 0], gains, atol=1e-6)
    assert signal.sides(new) == pytest.approx((gains[:18].mean(), gains[18:].mean()), abs=1e-6)
    assert signal.values(new[:, None])[0] == pytest.approx(gains[:18].mean() - gains[18:].mean(), abs=1e-6)


def test_a_p_is_the_share_of_relabelings_as_high_and_adjusted_for_all_signals():
    high, flat = np.array([0.0, 0, 0, 0, 1, 1]), np.array([1.0, 0, 1, 0, 1, 0])
    rise, none = find_shifts([MeanRise("high", high), MeanRise("flat", flat)], [2, 2], 0.05)
    assert rise.p == pytest.approx(1 / 15) and rise.adjusted_p == pytest.approx(2 / 15)  # all 15 relabelings
    assert (rise.expected, rise.found) == (0.0, 1.0) and none.adjusted_p > 0.5
    assert rise.excess == pytest.approx(1.0) and rise.detectable > 0


def test_words_that_a_document_repeats_are_no_shift(tiny):
    """Each document repeats a word of its own: many words are new, as they are among the earlier ones."""
    units = [f"{'abcdefgh'[i % 8]}{i} " * 50 + "the same text for all" for i in range(60)]
    random.Random(0).shuffle(units)
    assert not is_shift(units[:30], units[30:], tiny.tokenizer)


@pytest.mark.parametrize(("subject", "other"), [("covidqa", "gitbugs"), ("awsdocs", "covidqa"), ("gitbugs", "awsdocs")])
def test_queries_of_which_half_are_on_another_subject_are_a_shift_and_others_of_the_same_none(subject, other, tiny):
    own, foreign = queries(subject), queries(other)
    random.Random(1).shuffle(own)
    assert is_shift(own[:150], own[150:225] + foreign[:75], tiny.tokenizer)
    assert not is_shift(own[:150], own[150:], tiny.tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
def test_of_a_hundred_pairs_of_halves_five_at_most_are_false_alarms(subject, tiny):
    own = queries(subject)
    alarms = 0
    for draw in range(100):
        random.Random(draw).shuffle(own)
        alarms += is_shift(own[:150], own[150:], tiny.tokenizer)
    assert alarms <= 5
