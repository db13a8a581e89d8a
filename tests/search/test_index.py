"""The engine against exhaustive search."""

import numpy as np
import pytest

from utils.search import index as module
from utils.search.filters import parse_filters
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
    documents[200:] = [EMPTY_VECTOR] * 100
    index.delete([*range(200, 300), 10**6])
    index.settle("here")
    index.close()
    reopened = VectorIndex(tmp_path / "engine")
    assert reopened.stamp == "here"
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


FIELDS = [
    {"text0": ["2020"], "number0": [2020.0], "text1": ["a b"]},
    {"text0": ["2021.5"], "number0": [2021.5], "text1": ["a b", "c"]},
    {"text0": ["2022-05-01"], "time0": [1651363200.0], "text1": ["d"]},
    {},
]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], {0, 1, 2, 3}),
        (["0=2020"], {0}),
        (["0!=2020"], {1, 2, 3}),
        (["0>2020"], {1, 2}),
        (["0>=2020"], {0, 1, 2}),
        (["0<2021.5"], {0}),
        (["0<=2021.5"], {0, 1}),
        (["0=2022-05-01"], {2}),
        (["0<2022-05-01T00:00"], set()),
        (["0<=2022-05-01T00:00"], {2}),
        (["0>2022-05-01T00:00"], set()),
        (["1=a b"], {0, 1}),
        (["1!=a b"], {2, 3}),
        (["1=c", "1=d"], {1, 2}),
        (["1=a b", "0>2020"], {1}),
        (["1=A b"], set()),
        (["2=a"], set()),
    ],
)
@pytest.mark.parametrize("indexed", [0, 64])
def test_conditions_choose_points(filters, found, indexed, monkeypatch):
    monkeypatch.setattr(module, "MAX_INDEXED_FIELDS", indexed)
    index = VectorIndex()
    index.upsert(IndexPoint(number, {SPLADE: vector(t1=1.0)}, own) for number, own in enumerate(FIELDS))
    assert {number for number, _ in index.search(SPLADE, vector(t1=1.0), 10, parse_filters(filters))} == found


def test_words_of_removed_points_weigh_nothing():
    index, fresh = VectorIndex(), VectorIndex()
    points = [IndexPoint(n, {WORDS: vector(t7=1.0) if n % 4 else vector(t8=1.0)}, {}) for n in range(400)]
    index.upsert(points)
    index.settle("")
    index.delete([point.number for point in points if point.number > 7 and point.number % 4])
    index.settle("")
    fresh.upsert(point for point in points if point.number <= 7 or not point.number % 4)
    scores, expected = ([score for _, score in i.search(WORDS, vector(t7=1.0), 99)] for i in (index, fresh))
    assert scores == expected and len(scores) == 6


def test_an_empty_vector_takes_away_what_it_replaces():
    index = filled([vector(t1=1.0), vector(t1=2.0)])
    index.upsert([IndexPoint(0, {SPLADE: EMPTY_VECTOR}, {})])
    assert len(index) == 1 and index.search(SPLADE, vector(t1=1.0), 5) == [(1, 2.0)]


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    filled([vector(t1=1.0)], tmp_path / "engine").close()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(OSError, match="engine: cannot be written, which the engine has to; copy the index"):
        VectorIndex(tmp_path / "engine")


def test_files_that_the_engine_cannot_read_are_named(tmp_path):
    filled([vector(t1=1.0)], tmp_path / "engine").close()
    (tmp_path / "engine" / "edge_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"engine: the engine cannot read it: .*edge_config\.json"):
        VectorIndex(tmp_path / "engine")
