"""Which of several systems is better, by how much, and how sure that is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from utils.evaluation.significance import (
    CHANCE,
    ROUNDING,
    Difference,
    format_chance,
    paired_difference,
    paired_differences,
)
from utils.evaluation.systems import Evaluation

POWER = 0.8  # chance to find a difference that is there, with as many queries as `needed` says
MAX_NEEDED = 100_000  # queries; more would not be judged


class Comparison(NamedTuple):
    """How far a system is above a baseline by a metric, over the queries of a collection.

    Attributes:
        difference: mean, 95 % interval and p of this pair alone.
        adjusted_p: p by Holm's method over all pairs that were compared.
        effect: mean difference over its standard deviation (Cohen's d of paired values); None where that is 0.
        wins, ties, losses: queries on which the system is above, equal, below.
        needed: so many queries as these would show a difference of this size with the probability POWER; None where
            there is a difference, where the means are equal, or where it is more than MAX_NEEDED.
    """

    system: str
    baseline: str
    metric: str
    difference: Difference
    adjusted_p: float
    effect: float | None
    wins: int
    ties: int
    losses: int
    needed: int | None

    @property
    def verdict(self) -> str:
        """ "better", "worse" or, where it may be chance, "undecided"."""
        if self.adjusted_p >= CHANCE:
            return "undecided"
        return "better" if self.difference.mean > 0 else "worse"

    def __str__(self) -> str:
        figures = f"{self.metric} {self.difference}, p {format_chance(self.adjusted_p)}; "
        figures += f"{self.wins:,} won, {self.ties:,} tied, {self.losses:,} lost"
        names = f"{self.system} is {{}} {self.baseline}: {figures}"
        if self.verdict != "undecided":
            return names.format(f"{self.verdict} than")
        if not self.difference.mean:
            return names.format("as good as")
        queries = self.wins + self.ties + self.losses
        needed = f"about {self.needed:,}" if self.needed else f"more than {MAX_NEEDED:,}"
        return (
            f"{self.system} and {self.baseline}: not enough queries to tell; {figures}; a difference of this size takes"
            f" {needed} queries, and these are {queries:,}"
        )

    def row(self) -> dict[str, object]:
        """Return the figures for a file."""
        figures = self._asdict() | {"difference": self.difference._asdict(), "verdict": self.verdict}
        return {name: value for name, value in figures.items() if value is not None}


def compare(evaluations: Sequence[Evaluation], metric: str, first: int = 1) -> list[Comparison]:
    """Return the comparison of each system from place `first` on with each of those before it, by a metric. All p are
    adjusted for the number of pairs (Holm 1979, A simple sequentially rejective multiple test procedure)."""
    pairs = [
        (other, system) for place, system in enumerate(evaluations) if place >= first for other in evaluations[:place]
    ]
    values = [(system.values[metric], baseline.values[metric]) for baseline, system in pairs]
    differences = [paired_difference(*both) for both in values]
    adjusted = adjust_by_holm([difference.p for difference in differences])
    return [
        _compare(system, baseline, metric, *rest, len(pairs))
        for (baseline, system), *rest in zip(pairs, differences, adjusted, values)
    ]


def _compare(
    system: Evaluation,
    baseline: Evaluation,
    metric: str,
    difference: Difference,
    adjusted_p: float,
    values: tuple[np.ndarray, np.ndarray],
    pairs: int,
) -> Comparison:
    above = paired_differences(*values)
    spread = float(above.std(ddof=1)) if len(above) > 1 else 0.0
    effect = difference.mean / spread if spread > ROUNDING else None
    needed = None
    if adjusted_p >= CHANCE and difference.mean:
        needed = queries_needed(effect, CHANCE / pairs, len(above) + 1)
    counts = (int(part.sum()) for part in (above > 0, above == 0, above < 0))
    return Comparison(system.system, baseline.system, metric, difference, adjusted_p, effect, *counts, needed)


def adjust_by_holm(chances: Sequence[float]) -> list[float]:
    """Return the p of several tests, each multiplied by the number of those that are not smaller, and none below a
    smaller one's (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(chances)[order] * factors))
    return adjusted.tolist()


def queries_needed(effect: float | None, chance: float = CHANCE, least: int = 1) -> int | None:
    """Return how many queries show a difference of this effect size with the probability POWER, two-sided, where chance
    alone shows one in `chance` of cases (normal approximation of the paired t-test; Sakai 2016, Topic set size design);
    None for more than MAX_NEEDED.

    Args:
        effect: None for a difference that is the same for each query.
        least: so many at least, as it is not seen with fewer. Also at least as many as a randomization test takes to
            give a p below `chance`, which is 2 / 2^queries for a difference on the same side for each.
    """
    least = max(least, math.ceil(math.log2(2 / chance)) + 1)
    needed = math.ceil(((norm.isf(chance / 2) + norm.isf(1 - POWER)) / effect) ** 2) if effect else least
    return max(least, needed) if needed <= MAX_NEEDED else None
