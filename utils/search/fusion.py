"""Fusion of several searches for one query: what each gives to documents, by its scores or by its ranks."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

FUSIONS = ("scores", "ranks")
RANK_CONSTANT = 60  # of reciprocal rank fusion, from its paper


def fuse(
    searches: Mapping[str, Mapping[Name, float]], rule: str = "scores", weights: Mapping[str, float] | None = None
) -> dict[Name, float]:
    """Return the weighted sums by document of what the searches give it, 0 where one has not found it, or not above 0.

    By `scores`, a search gives its score divided by its highest (CombSUM: Fox and Shaw 1994, Combination of multiple
    searches); by `ranks`, 1 / (RANK_CONSTANT + rank) (Cormack, Clarke and Büttcher 2009, Reciprocal rank fusion
    outperforms Condorcet and individual rank learning methods).

    Args:
        searches: scores by document, best first, of each search by name.
        weights: by the searches' names; None for 1 each.
    """
    fused: dict[Name, float] = {}
    for search, scores in searches.items():
        weight = weights[search] if weights else 1.0
        highest = max(scores.values(), default=0.0)
        for rank, (document, score) in enumerate(scores.items(), 1):
            if score > 0:
                part = score / highest if rule == "scores" else 1 / (RANK_CONSTANT + rank)
                fused[document] = fused.get(document, 0.0) + weight * part
    return fused
