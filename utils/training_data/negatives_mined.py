"""Hard negatives by any model that searches: what it ranks high and, by a teacher, does not answer the query."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from utils.console import progress_bar
from utils.search.scorers import FusedScorer, VectorScorer

SKIPPED_TOP_RANKS = 30  # ranks left out where no teacher can tell answers from negatives
CANDIDATES_PER_NEGATIVE = 3  # candidates that a teacher is asked about for each negative wanted
FALSE_NEGATIVE_MARGIN = 0.5  # below a positive's score, in a teacher's standard deviations, that a negative has to be

T = TypeVar("T")


def mine_negatives(
    queries: Sequence[int],
    positives: Sequence[int],
    origins: Sequence[set[str]],
    miner: VectorScorer,
    teacher: FusedScorer | None,
    count: int,
    depth: int = 100,
    margin: float = FALSE_NEGATIVE_MARGIN,
) -> tuple[list[list[int]], int]:
    """Documents that `miner` ranks high for each example's query, and that are not the answer.

    Never a positive of the same query, nor one that was made from the same passage or document as the example's own.
    With a teacher, none that it puts above the positive less `margin` of its deviations; without one, none of the
    first SKIP_TOP ranks.

    Args:
        queries, positives: each example's, as numbers of the miner's and the teacher's texts.
        origins: the names of the passage and the document that each example was made from.
        count, depth: negatives an example, evenly spread over the first `depth` ranks.

    Returns:
        Each example's negatives, and how many candidates the teacher took for answers.
    """
    sources: dict[int, set[str]] = {}
    answers: dict[int, set[int]] = {}
    for query, positive, origin in zip(queries, positives, origins):
        sources.setdefault(positive, set()).update(origin)
        answers.setdefault(query, set()).add(positive)
    skip, wanted = (SKIPPED_TOP_RANKS, count) if teacher is None else (0, CANDIDATES_PER_NEGATIVE * count)
    rankings = progress_bar(miner.search(depth), total=miner.queries.shape[0], desc="mining", unit="queries")
    best = {query: ranking[scores > 0][skip:].tolist() for query, (ranking, scores) in enumerate(rankings)}
    pools = []
    for query, origin in zip(queries, origins):
        fit = [d for d in best[query] if d not in answers[query] and not origin & sources.get(d, set())]
        pools.append(evenly_spaced(fit, wanted))
    if teacher is None:
        return pools, 0
    owners = [query for query, pool in zip(queries, pools) for _ in pool]
    scores = teacher.pair_scores(np.array(owners, int), np.array([d for pool in pools for d in pool], int))
    limits = teacher.pair_scores(np.array(queries), np.array(positives)) - margin * teacher.deviation
    kept, start = [], 0
    for pool, limit in zip(pools, limits):
        kept.append([d for d, score in zip(pool, scores[start : start + len(pool)]) if score < limit])
        start += len(pool)
    return [evenly_spaced(pool, count) for pool in kept], len(scores) - sum(map(len, kept))


def evenly_spaced(candidates: Sequence[T], count: int) -> Sequence[T]:
    """At most `count` of the candidates, evenly spread over them."""
    return candidates[:: max(1, len(candidates) // count)][:count]
