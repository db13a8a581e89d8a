"""Weights of a hybrid search's parts, learned on judged queries."""

import itertools
from collections.abc import Iterator

from utils.console import progress_bar
from utils.evaluation.collection import Collection
from utils.evaluation.metrics import score_run
from utils.search.fusion import fuse
from utils.search.legs import FUSED_DEPTH
from utils.search.searcher import DocumentSearch

STEPS = 10  # a weight is a multiple of 1 / STEPS; the weights sum to 1
WEIGHTS_METRIC = "nDCG@10"


def learn_weights(search: DocumentSearch, data: Collection) -> dict[str, float]:
    """Return the weights by part of a hybrid search, those above 0, with which WEIGHTS_METRIC is highest; of several,
    those that are nearest to equal ones. The documents have to be those of the search's index, in order."""
    ids = [document.id for document in data.documents]
    parts: dict[str, dict[str, dict[str, float]]] = {leg: {} for leg in search.legs}
    for leg in search.legs:
        alone = DocumentSearch(search.index, search.model, leg, query_terms=search.query_terms)
        for query, text in progress_bar(data.queries.items(), desc=leg, unit="queries", leave=False):
            parts[leg][query] = {ids[hit.document]: hit.score for hit in alone.rank(alone.encode(text), FUSED_DEPTH)}
    equal = 1 / len(search.legs)
    figures = []
    for weights in _weightings(search.legs):
        fused = (fuse({leg: parts[leg][query] for leg in weights}, search.fusion, weights) for query in data.queries)
        figure = score_run(data.qrels, zip(data.queries, fused), [WEIGHTS_METRIC]).means[WEIGHTS_METRIC]
        figures.append((figure, -sum((weights.get(leg, 0) - equal) ** 2 for leg in search.legs), weights))
    return max(figures, key=lambda row: row[:2])[2]


def _weightings(legs: list[str]) -> Iterator[dict[str, float]]:
    """Yield all weights above 0 of the parts that are multiples of 1 / STEPS and sum to 1."""
    for counts in itertools.product(range(STEPS + 1), repeat=len(legs)):
        if sum(counts) == STEPS:
            yield {leg: count / STEPS for leg, count in zip(legs, counts) if count}
