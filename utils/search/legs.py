"""The legs of a search, each of which ranks passages by another kind of vectors; together they rank documents."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from utils.search.fusion import fuse
from utils.search.index import DENSE, SPLADE, WORDS
from utils.splade.vectors import SparseVector

FUSED_DEPTH = 100  # documents of each leg that are fused
LEGS = {"splade": SPLADE, "bm25": WORDS, "dense": DENSE}  # what a hybrid search is made of -> vectors in the engine

Key = int | str  # what an index knows a document, or a passage, by
Vector = SparseVector | np.ndarray
# By leg the query's vector and a number of passages -> the (document, passage, score) of so many, best first.
PassageSearch = Callable[[Mapping[str, tuple[Vector, int]]], Mapping[str, Sequence[tuple[Key, Key, float]]]]


class Hit(NamedTuple):
    """A document that was found, what it is ranked by, and its best passage."""

    document: Key
    score: float
    passage: Key


def rank_documents(
    search_passages: PassageSearch,
    queries: Mapping[str, Vector],
    top_k: int,
    fusion: str = "scores",
    weights: Mapping[str, float] | None = None,
) -> list[Hit]:
    """Return the `top_k` documents that match a query best, best first: those with the highest scores of a single leg,
    or, of several, those with the highest sum (`fuse`) among the best FUSED_DEPTH or `top_k` of each.

    Args:
        queries: the query's vectors by leg.
        fusion, weights: see `fuse`.
    """
    found = _search_legs(search_passages, queries, max(top_k, FUSED_DEPTH) if len(queries) > 1 else top_k)
    if len(found) == 1:
        return found.popitem()[1]
    fused = fuse({leg: {hit.document: hit.score for hit in hits} for leg, hits in found.items()}, fusion, weights)
    passages = {hit.document: hit.passage for hits in reversed(found.values()) for hit in hits}
    best = sorted(fused, key=lambda document: (-fused[document], document))[:top_k]
    return [Hit(document, fused[document], passages[document]) for document in best]


def _search_legs(search_passages: PassageSearch, queries: Mapping[str, Vector], top_k: int) -> dict[str, list[Hit]]:
    """Return by leg the `top_k` best documents by their best passages. So many passages are asked for first, then twice
    as many as before where they are of fewer documents."""
    found: dict[str, list[Hit]] = {leg: [] for leg in queries}
    depths = {leg: top_k for leg, query in queries.items() if isinstance(query, np.ndarray) or len(query.indices)}
    while depths:
        for leg, passages in search_passages({leg: (queries[leg], depth) for leg, depth in depths.items()}).items():
            best: dict[Key, Hit] = {}
            for document, passage, score in passages:
                best.setdefault(document, Hit(document, score, passage))
            if len(best) >= top_k or len(passages) < depths[leg]:
                found[leg] = list(best.values())[:top_k]
                del depths[leg]
            else:
                depths[leg] *= 2
    return found
