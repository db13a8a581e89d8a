"""BM25 search."""

import pytest

from utils.search.lexical import BM25Index


def test_the_best_match_comes_first_and_texts_without_a_shared_word_are_left_out():
    index = BM25Index(["red apples", "green apples and green pears", "blue sea", ""])
    hits = index.search(["green apples", "zebra", ""], 10)
    assert [position for position, _ in hits[0]] == [1, 0]
    assert hits[1] == hits[2] == []


def test_the_product_of_the_matrices_is_what_search_scores():
    index = BM25Index(["red apples", "green apples and green pears", "blue sea", ""])
    queries = ["green apples", "apples red apples", "zebra", ""]
    product = (index.query_matrix(queries) @ index.document_matrix().T).toarray()
    for row, hits in zip(product, index.search(queries, 10)):
        assert {i: pytest.approx(s) for i, s in hits} == {i: s for i, s in enumerate(row.tolist()) if s}


def test_mean_terms_counts_distinct_words():
    index = BM25Index(["red red apples", "sea"])
    assert index.mean_terms(["red red apples", "sea"]) == 1.5
