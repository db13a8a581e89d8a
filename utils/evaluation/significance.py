"""How sure a difference between two systems is, over the queries that both answered."""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, permutation_test

BATCH = 100  # resamples at a time; bounds memory, [batch, queries]
CHANCE = 0.05  # a difference that chance makes more rarely is one
ROUNDING = 1e-9  # differences of a metric's values up to this are none
RESAMPLES = 10_000  # the ends of an interval then vary by about a hundredth of its width


class Difference(NamedTuple):
    """A mean difference over queries, its 95 % interval, and how often chance makes one as large or larger."""

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def format_chance(p: float) -> str:
    """Return a p for a sentence or a table."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def paired_differences(values: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Return [queries] differences, 0 for those that rounding makes."""
    differences = np.asarray(values - baseline, float)
    return np.where(np.abs(differences) > ROUNDING, differences, 0.0)


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """Return how far [queries] values of a metric are above a baseline's for the same queries.

    The interval is that of a paired bootstrap over the queries (percentile; Efron and Tibshirani 1993), p that of a
    paired randomization test, two-sided (Smucker et al. 2007, A comparison of statistical significance tests for
    information retrieval evaluation); both with RESAMPLES resamples and seed 0. Where few queries differ, p is the one
    to trust.
    """
    differences = paired_differences(values, baseline)
    mean = float(differences.mean())
    if len(differences) < 2:  # SciPy has no answer for one
        return Difference(mean, mean, mean, 1.0)
    options = {"n_resamples": RESAMPLES, "batch": BATCH}
    ends = (mean, mean)
    if differences.std():
        rng = np.random.default_rng(0)
        ends = bootstrap((differences,), np.mean, method="percentile", rng=rng, **options).confidence_interval
    # Signs turn at random: a sample by itself is paired with its negative.
    rng = np.random.default_rng(0)
    p = permutation_test((differences,), np.mean, permutation_type="samples", rng=rng, **options).pvalue
    return Difference(mean, *map(float, ends), float(p))
