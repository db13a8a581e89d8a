"""BM25 search."""

from utils.lexical import BM25Index


def test_the_best_match_comes_first_and_strangers_are_left_out():
    index = BM25Index(["red apples", "green apples and green pears", "blue sea", ""])
    hits = index.search(["green apples", "zebra", ""], 10)
    assert [position for position, _ in hits[0]] == [1, 0]
    assert hits[1] == hits[2] == []


def test_mean_terms_counts_distinct_words():
    index = BM25Index(["red red apples", "sea"])
    assert index.mean_terms(["red red apples", "sea"]) == 1.5
