"""How sure a difference between two systems is, over the queries that both answered."""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

BATCH = 100  # resamples at a time; bounds memory, [batch, queries]
RESAMPLES = 10_000  # of the bootstrap; the ends of an interval then vary by about a hundredth of its width


class Difference(NamedTuple):
    """A mean difference over queries, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def paired_difference(values: np.ndarray, baseline: np.ndarray) -> Difference:
    """Return how far [queries] values of a metric are above a baseline's for the same queries, with the interval of a
    paired bootstrap over the queries (percentile, RESAMPLES resamples, seed 0; Efron and Tibshirani 1993)."""
    differences = values - baseline
    mean = float(differences.mean())
    if not differences.std():
        return Difference(mean, mean, mean)
    rng = np.random.default_rng(0)
    found = bootstrap((differences,), np.mean, n_resamples=RESAMPLES, batch=BATCH, method="percentile", rng=rng)
    return Difference(mean, *map(float, found.confidence_interval))
