"""Hard negatives by any retriever: documents that it ranks high and that, by a teacher, do not answer the query."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from utils.console import progress_bar
from utils.search.scorers import FusedScorer, VectorScorer

# Ranks of negatives without a teacher: skipping the top avoids false negatives, and loses the hardest negatives; below
# the lowest rank documents are nearly random. The shares are of a small collection, where both lie closer to the query.
SKIPPED_TOP_RANKS, SKIPPED_TOP_SHARE = 30, 1 / 20
LOWEST_RANK, LOWEST_RANK_SHARE = 100, 1 / 6
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
    depth: int | None = None,
    margin: float = FALSE_NEGATIVE_MARGIN,
) -> tuple[list[list[int]], int]:
    """Mine hard negatives: documents that `miner` ranks high for an example's query and that do not answer it.

    A negative is never a positive of the same query, nor a text made from the example's own passage or document.
    With a teacher its score is below the positive's by more than `margin` standard deviations of the teacher's scores;
    without one it is at a rank of `rank_window` among the documents that are left so.

    Args:
        queries, positives: [examples] the index of each example's query and positive among the texts that the miner
            and the teacher were opened with.
        origins: [examples] the ids of the passage and the document that each example was made from.
        count: negatives per example, at equal steps over the candidates.
        depth: number of top ranks to take candidates from; None for LOWEST_RANK and, without a teacher, no more than
            LOWEST_RANK_SHARE of the documents.

    Returns:
        The indices of each example's negatives, `count` at most, and the number of candidates that the teacher
        rejected as false negatives.
    """
    sources: dict[int, set[str]] = {}
    answers: dict[int, set[int]] = {}
    for query, positive, origin in zip(queries, positives, origins):
        sources.setdefault(positive, set()).update(origin)
        answers.setdefault(query, set()).add(positive)
    if teacher is None:
        window, pool_size = rank_window(miner.documents.shape[0], depth), count
    else:
        window, pool_size = slice(None), CANDIDATES_PER_NEGATIVE * count
    rankings = progress_bar(
        miner.search(depth or LOWEST_RANK), total=miner.queries.shape[0], desc="mining", unit="queries"
    )
    ranked = {query: ranking[scores > 0].tolist() for query, (ranking, scores) in enumerate(rankings)}
    pools = []
    for query, origin in zip(queries, origins):
        candidates = [d for d in ranked[query] if d not in answers[query] and not origin & sources.get(d, set())]
        pools.append(evenly_spaced(candidates[window], pool_size))
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


def rank_window(size: int, depth: int | None = None) -> slice:
    """Return the ranks, counted from 0 among the candidates, that negatives come from where no teacher looks at them:
    31 to 100 of 600 documents or more, above a twentieth and up to a sixth of `size` documents; none of fewer than 12.
    With `depth` they go down to that rank.
    """
    skipped = min(SKIPPED_TOP_RANKS, math.ceil(SKIPPED_TOP_SHARE * size))
    return slice(skipped, depth or min(LOWEST_RANK, int(LOWEST_RANK_SHARE * size)))


def explain_no_negatives(size: int, depth: int | None, has_teacher: bool, false_negatives: int) -> str:
    """Return why `mine_negatives` found no negative at all among `size` documents, of whose candidates the teacher
    rejected `false_negatives`."""
    window = rank_window(size, depth)
    if false_negatives:
        return f"the teacher takes all {false_negatives:,} candidates for likely answers; lower `margin`"
    related = "all that it finds are positives of the query, or of the same passage or document"
    if has_teacher:
        deeper = f"look below rank {depth} by a higher `depth`, or " if depth and depth < size else ""
        return f"{related}; {deeper}add documents by `docs_file`"
    skipped = f"without a `teacher` the first {window.start} others are left out as likely answers"
    if window.start < window.stop:
        return f"{related}, and {skipped}; add documents by `docs_file`, or name a teacher"
    wrong = f"`depth={depth}` ends there" if depth else f"{size:,} documents are too few"
    return f"{skipped}, and {wrong}; name a teacher"


def evenly_spaced(candidates: Sequence[T], count: int) -> list[T]:
    """Return up to `count` of the candidates, at equal steps from the first on."""
    count = min(count, len(candidates))
    return [candidates[i * len(candidates) // count] for i in range(count)]
