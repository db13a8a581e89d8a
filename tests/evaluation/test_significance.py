"""Differences between two systems over queries."""

import numpy as np
import pytest

from utils.evaluation.significance import paired_difference


def test_an_interval_is_that_of_the_mean_over_queries():
    differences = np.random.default_rng(1).normal(0.05, 0.2, 400)
    baseline = np.linspace(0, 1, 400)
    found = paired_difference(baseline + differences, baseline)
    half = 1.96 * differences.std() / 400**0.5
    assert found.mean == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.002)
    assert found.p < 0.001
    assert str(found) == f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def test_a_few_wins_among_many_ties_may_be_chance():
    values = np.zeros(71)
    values[:4] = 0.5
    found = paired_difference(values, np.zeros(71))
    assert found.low > 0 and found.p == pytest.approx(2 / 2**4, abs=0.02)


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (0.25, 2 / 2**10)])
def test_equal_differences_have_no_width(difference, p):
    found = paired_difference(np.full(10, 0.5) + difference, np.full(10, 0.5))
    assert found[:3] == (difference, difference, difference) and found.p == pytest.approx(p)
