"""Hard negatives by any retriever: documents that it ranks high and that, by a teacher, do not answer the query."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from utils.console import progress_bar
from utils.search.scorers import FusedScorer, VectorScorer

SKIPPED_TOP_RANKS = 30  # top ranks skipped without a teacher: avoids false negatives, and loses the hardest negatives
CANDIDATES_PER_NEGATIVE = 3  # candidates scored by the teacher per negative; spares for the false negatives among them
FALSE_NEGATIVE_MARGIN = 0.5  # standard deviations of the teacher's scores by which a negative is below the positive

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
    """Mine hard negatives: documents that `miner` ranks high for an example's query and that do not answer it.

    A negative is never a positive of the same query, nor a text made from the example's own passage or document.
    With a teacher its score is below the positive's by more than `margin` standard deviations of the teacher's scores;
    without one it is not in the first SKIPPED_TOP_RANKS ranks.

    Args:
        queries, positives: [examples] the index of each example's query and positive among the texts that the miner
            and the teacher were opened with.
        origins: [examples] the ids of the passage and the document that each example was made from.
        count: negatives per example, at equal steps over the candidates.
        depth: number of top ranks to take candidates from.

    Returns:
        The indices of each example's negatives, `count` at most, and the number of candidates that the teacher
        rejected as false negatives.
    """
    sources: dict[int, set[str]] = {}
    answers: dict[int, set[int]] = {}
    for query, positive, origin in zip(queries, positives, origins):
        sources.setdefault(positive, set()).update(origin)
        answers.setdefault(query, set()).add(positive)
    skip, pool_size = (SKIPPED_TOP_RANKS, count) if teacher is None else (0, CANDIDATES_PER_NEGATIVE * count)
    rankings = progress_bar(miner.search(depth), total=miner.queries.shape[0], desc="mining", unit="queries")
    ranked = {query: ranking[scores > 0][skip:].tolist() for query, (ranking, scores) in enumerate(rankings)}
    pools = []
    for query, origin in zip(queries, origins):
        candidates = [d for d in ranked[query] if d not in answers[query] and not origin & sources.get(d, set())]
        pools.append(evenly_spaced(candidates, pool_size))
    if teacher is None:
        return pools, 0
    pool_queries = [query for query, pool in zip(queries, pools) for _ in pool]
    scores = teacher.pair_scores(np.array(pool_queries, int), np.array([d for pool in pools for d in pool], int))
    thresholds = teacher.pair_scores(np.array(queries), np.array(positives)) - margin * teacher.deviation
    kept, start = [], 0
    for pool, threshold in zip(pools, thresholds):
        kept.append([d for d, score in zip(pool, scores[start : start + len(pool)]) if score < threshold])
        start += len(pool)
    return [evenly_spaced(pool, count) for pool in kept], len(scores) - sum(map(len, kept))


def evenly_spaced(candidates: Sequence[T], count: int) -> Sequence[T]:
    """Return up to `count` of the candidates, at equal steps from the first on."""
    return candidates[:: max(1, len(candidates) // count)][:count]
