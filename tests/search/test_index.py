"""The search index against exhaustive search."""

import numpy as np

from utils.search.index import SearchIndex


def random_vectors(count, vocabulary=3000, seed=0):
    """Return `count` sparse vectors of 0 to 59 random terms."""
    rng = np.random.default_rng(seed)
    vectors = []
    for _ in range(count):
        size = rng.integers(0, 60)
        indices = np.sort(rng.choice(vocabulary, size, replace=False)).astype(np.int32)
        vectors.append((indices, rng.random(size).astype(np.float32)))
    return vectors


def test_search_is_exact():
    documents, queries = random_vectors(2500), random_vectors(20, seed=1)
    matrix = np.zeros((2500, 3000), np.float32)
    for row, (indices, values) in zip(matrix, documents):
        row[indices] = values
    index = SearchIndex(documents)
    for indices, values in queries:
        scores = matrix[:, indices] @ values
        best = np.sort(scores[scores > 0])[::-1][:10]
        hits = index.search((indices, values), 10)
        np.testing.assert_allclose([score for _, score in hits], best, rtol=1e-5)
        for position, score in hits:
            np.testing.assert_allclose(scores[position], score, rtol=1e-5)


def test_empty_vectors_are_never_found_and_find_nothing():
    empty = (np.empty(0, np.int32), np.empty(0, np.float32))
    full = (np.array([1, 2], np.int32), np.array([1.0, 2.0], np.float32))
    index = SearchIndex([empty, full, empty])
    assert index.search(full, 5) == [(1, 5.0)]
    assert index.search(empty, 5) == []
    assert SearchIndex([empty]).search(full, 5) == SearchIndex([]).search(full, 5) == []


def test_more_hits_than_the_engine_can_count_are_all_there_are():
    vector = np.array([3], np.int32), np.array([1.0], np.float32)
    assert SearchIndex([vector]).search(vector, 10**30) == [(0, 1.0)]
