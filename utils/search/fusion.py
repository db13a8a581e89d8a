"""Fusion of the scores that several kinds of search give to documents."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def fuse_scores(searches: Sequence[dict[Name, float]]) -> dict[Name, float]:
    """Return the sums by document of scores above 0, those of each search divided by its highest; a document that one
    of them lacks has 0 there (CombSUM, Fox and Shaw 1994, Combination of multiple searches)."""
    fused: dict[Name, float] = {}
    for scores in searches:
        highest = max(scores.values(), default=1.0)
        for document, score in scores.items():
            fused[document] = fused.get(document, 0.0) + score / highest
    return fused
