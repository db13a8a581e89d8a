"""Which of several systems is better, and how sure that is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, permutation_test, ttest_rel

from utils.evaluation.comparison import adjust_by_holm, compare, queries_needed
from utils.evaluation.systems import Evaluation


def evaluation(name: str, values) -> Evaluation:
    values = np.asarray(values, float)
    return Evaluation(name, {"AP": float(values.mean())}, {"AP": values}, {})


def test_holm_multiplies_each_p_by_the_number_of_those_that_are_not_smaller():
    assert adjust_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_by_holm([0.5, 0.9]) == [1, 1] and adjust_by_holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_false_discovery_rate_and_bonferroni(chances):
    adjusted = np.array(adjust_by_holm(chances))
    assert (adjusted <= np.minimum(1, np.array(chances) * len(chances)) + 1e-12).all()
    assert (adjusted >= false_discovery_control(chances) - 1e-12).all()
    assert (np.diff(adjusted[np.argsort(chances, kind="stable")]) >= -1e-12).all()


def test_p_is_that_of_scipys_test_with_all_permutations():
    rng = np.random.default_rng(3)
    baseline, system = rng.random((2, 12))
    exact = permutation_test((system - baseline,), np.mean, permutation_type="samples", n_resamples=2**12).pvalue
    (pair,) = compare([evaluation("a", baseline), evaluation("b", system)], "AP")
    assert pair.difference.p == pair.adjusted_p == pytest.approx(exact, abs=0.01)


def test_all_pairs_are_compared_the_later_with_the_earlier():
    rng = np.random.default_rng(4)
    values = rng.random(300)
    systems = [evaluation("bm25", values), evaluation("same", values), evaluation("tuned", values + 0.05)]
    pairs = {(pair.system, pair.baseline): pair for pair in compare(systems, "AP")}
    assert pairs.keys() == {("same", "bm25"), ("tuned", "bm25"), ("tuned", "same")}
    equal, better = pairs["same", "bm25"], pairs["tuned", "bm25"]
    assert (equal.verdict, equal.ties, equal.needed, equal.adjusted_p) == ("undecided", 300, None, 1)
    assert str(equal).startswith("same is as good as bm25: ")
    assert (better.verdict, better.wins, better.losses) == ("better", 300, 0)
    assert str(better).startswith("tuned is better than bm25: AP +0.050 (+0.050 to +0.050), p below 0.001; 300 won")


def test_only_the_systems_that_are_judged_are_compared():
    systems = [evaluation(name, np.arange(5) % (i + 2)) for i, name in enumerate("abcd")]
    pairs = [(pair.system, pair.baseline) for pair in compare(systems, "AP", 2)]
    assert pairs == [("c", "a"), ("c", "b"), ("d", "a"), ("d", "b"), ("d", "c")]
    assert len(compare(systems, "AP", 0)) == 6 and compare(systems[:1], "AP", 0) == []


def test_a_difference_that_may_be_chance_says_how_many_queries_it_takes():
    rng = np.random.default_rng(5)
    differences = rng.normal(0.02, 0.2, 50)
    baseline = rng.random(50)
    (pair,) = compare([evaluation("a", baseline), evaluation("b", baseline + differences)], "AP")
    assert pair.verdict == "undecided" and pair.effect == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert f"takes about {pair.needed:,} queries, and these are 50" in str(pair)
    # With so many queries of the same effect, a t-test finds it in about 80 of 100 samples.
    samples = rng.normal(pair.effect, 1, (400, pair.needed))
    found = np.mean([ttest_rel(sample, np.zeros(pair.needed)).pvalue < 0.05 for sample in samples])
    assert 0.72 < found < 0.88


def test_a_difference_next_to_nothing_takes_more_queries_than_anybody_judges():
    assert queries_needed(0.5) == 32 and queries_needed(-0.5) == 32 and queries_needed(0.001) is None
    values = np.tile([0.0, 1.0], 50)
    other = values.copy()
    other[:2] = [0.9999, 0.0002]
    (pair,) = compare([evaluation("a", values), evaluation("b", other)], "AP")
    assert "takes more than 100,000 queries" in str(pair)


def test_few_queries_and_many_pairs_are_no_error():
    (pair,) = compare([evaluation("a", [0.5]), evaluation("b", [1.0])], "AP")
    assert pair.verdict == "undecided" and pair.effect is None and pair.adjusted_p == 1
    assert compare([evaluation("a", [0.5])], "AP") == []
    many = compare([evaluation(str(i), np.arange(9) % (i + 2)) for i in range(6)], "AP")
    assert len(many) == 15 and all(pair.adjusted_p >= pair.difference.p for pair in many)


def test_differences_of_rounding_are_none():
    values = np.full(30, 1 / 3)
    (pair,) = compare([evaluation("a", values), evaluation("b", np.where(np.arange(30) < 15, 1 - 2 / 3, values))], "AP")
    assert (pair.verdict, pair.ties, pair.difference.mean) == ("undecided", 30, 0)


@pytest.mark.parametrize(("queries", "needed"), [(1, 7), (3, 7), (5, 7)])
def test_as_many_queries_are_needed_as_a_test_takes_where_all_differ_alike(queries, needed):
    (pair,) = compare([evaluation("a", np.full(queries, 0.5)), evaluation("b", np.full(queries, 1.0))], "AP")
    assert pair.verdict == "undecided" and pair.needed == needed and f"takes about {needed} queries" in str(pair)
    (enough,) = compare([evaluation("a", np.full(needed, 0.5)), evaluation("b", np.full(needed, 1.0))], "AP")
    assert enough.verdict == "better"
    assert queries_needed(2.0, least=9) == 9
