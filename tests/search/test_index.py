"""The engine against exhaustive search."""

import numpy as np
import pytest

from utils.search.filters import Condition
from utils.search.index import SPLADE, WORDS, IndexPoint, VectorIndex
from utils.splade.vectors import EMPTY_VECTOR, SparseVector


def random_vectors(count, vocabulary=3000, seed=0):
    """Return `count` sparse vectors of 0 to 59 random terms, with weights that float16 can hold."""
    rng = np.random.default_rng(seed)
    vectors = []
    for _ in range(count):
        size = rng.integers(0, 60)
        indices = np.sort(rng.choice(vocabulary, size, replace=False)).astype(np.int32)
        vectors.append(SparseVector(indices, rng.random(size).astype(np.float16).astype(np.float32)))
    return vectors


def vector(**weights):
    """Return the vector with these weights by term, as t7=0.5."""
    indices = np.array([int(name[1:]) for name in weights], np.int32)
    return SparseVector(indices, np.array(list(weights.values()), np.float32))


def filled(vectors, folder=None):
    index = VectorIndex(folder)
    index.upsert(IndexPoint(number, {SPLADE: own}, {}) for number, own in enumerate(vectors))
    return index


def dense(vectors):
    matrix = np.zeros((len(vectors), 3000), np.float32)
    for row, (indices, values) in zip(matrix, vectors):
        row[indices] = values
    return matrix


def test_search_is_exact():
    documents, queries = random_vectors(2500), random_vectors(20, seed=1)
    matrix, index = dense(documents), filled(documents)
    for query in queries:
        scores = matrix[:, query.indices] @ query.values
        best = np.sort(scores[scores > 0])[::-1][:10]
        hits = index.search(SPLADE, query, 10)
        np.testing.assert_allclose([score for _, score in hits], best, rtol=1e-5)
        for number, score in hits:
            np.testing.assert_allclose(scores[number], score, rtol=1e-5)


def test_empty_vectors_are_never_found_and_find_nothing():
    full = vector(t1=1.0, t2=2.0)
    index = filled([EMPTY_VECTOR, full, EMPTY_VECTOR])
    assert index.search(SPLADE, full, 5) == [(1, 5.0)] and len(index) == 1
    assert index.search(SPLADE, EMPTY_VECTOR, 5) == []
    assert filled([EMPTY_VECTOR]).search(SPLADE, full, 5) == filled([]).search(SPLADE, full, 5) == []


def test_more_hits_than_the_engine_can_count_are_all_there_are():
    assert filled([vector(t3=1.0)]).search(SPLADE, vector(t3=1.0), 10**30) == [(0, 1.0)]


def test_points_are_replaced_and_removed_and_stay_so_on_the_disk(tmp_path):
    documents, query = random_vectors(300), random_vectors(1, seed=2)[0]
    index = filled(documents, tmp_path / "engine")
    documents[:100] = random_vectors(100, seed=3)
    index.upsert(IndexPoint(number, {SPLADE: own}, {}) for number, own in enumerate(documents[:100]))
    for number in range(100):
        if not len(documents[number].indices):
            index.delete([number])  # an empty vector replaces nothing
    documents[200:] = [EMPTY_VECTOR] * 100
    index.delete([*range(200, 300), 10**6])
    index.optimize()
    index.close()
    reopened = VectorIndex(tmp_path / "engine")
    scores = dense(documents)[:, query.indices] @ query.values
    hits = reopened.search(SPLADE, query, 1000)
    assert {number for number, _ in hits} == set(np.flatnonzero(scores).tolist()) and len(hits) > 50
    assert len(reopened) == sum(len(own.indices) > 0 for own in documents)


def test_words_weigh_by_their_rarity_over_all_points():
    index = VectorIndex()
    words = [vector(t7=0.5), vector(t7=0.5, t8=0.25), vector(t7=1.0), vector(t9=1.0)]
    index.upsert(IndexPoint(number, {WORDS: own}, {}) for number, own in enumerate(words))
    idf = {term: np.log(1 + (4 - count + 0.5) / (count + 0.5)) for term, count in ((7, 3), (8, 1))}
    hits = dict(index.search(WORDS, vector(t7=2.0, t8=1.0), 10))
    expected = {0: idf[7], 1: idf[7] + 0.25 * idf[8], 2: 2 * idf[7]}
    assert hits == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ([], {0, 1, 2, 3}),
        ([[("n0", "=", 2020.0)]], {0}),
        ([[("n0", "!=", 2020.0)]], {1, 2, 3}),
        ([[("n0", ">", 2020.0)]], {1, 2}),
        ([[("n0", ">=", 2020.0)]], {0, 1, 2}),
        ([[("n0", "<", 2021.5)]], {0}),
        ([[("n0", "<=", 2021.5)]], {0, 1}),
        ([[("t1", "=", "a b")]], {0, 1}),
        ([[("t1", "!=", "a b")]], {2, 3}),
        ([[("t1", "=", "c"), ("t1", "=", "d")]], {1, 2}),
        ([[("t1", "=", "a b")], [("n0", ">", 2020.0)]], {1}),
        ([[("t1", "=", "A b")]], set()),
        ([[("none", "=", "a")]], set()),
    ],
)
def test_conditions_choose_points(where, found):
    index = VectorIndex()
    fields = [{"n0": [2020.0], "t1": ["a b"]}, {"n0": [2021.5], "t1": ["a b", "c"]}, {"n0": [2022.0], "t1": ["d"]}, {}]
    index.upsert(IndexPoint(number, {SPLADE: vector(t1=1.0)}, own) for number, own in enumerate(fields))
    where = [[Condition(*condition) for condition in alternatives] for alternatives in where]
    assert {number for number, _ in index.search(SPLADE, vector(t1=1.0), 10, where)} == found


def test_files_that_the_engine_cannot_read_are_named(tmp_path):
    filled([vector(t1=1.0)], tmp_path / "engine").close()
    (tmp_path / "engine" / "edge_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"engine: the engine cannot read it: .*edge_config\.json"):
        VectorIndex(tmp_path / "engine")
