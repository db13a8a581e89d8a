"""Fusion: what several searches give to a document together."""

import pytest

from utils.search.fusion import fuse

MODEL = {"a": 8.0, "b": 4.0, "c": 2.0}
WORDS = {"b": 3.0, "d": 1.5}


def test_scores_are_shares_of_the_highest():
    assert fuse({"splade": MODEL, "bm25": WORDS}) == {"a": 1, "b": 1.5, "c": 0.25, "d": 0.5}


def test_ranks_count_from_one_after_the_constant():
    fused = fuse({"splade": MODEL, "bm25": WORDS}, "ranks")
    assert fused == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 63, "d": 1 / 62})


@pytest.mark.parametrize("rule", ["scores", "ranks"])
def test_weights_multiply_what_a_search_gives(rule):
    alone = {name: fuse({name: scores}, rule) for name, scores in (("splade", MODEL), ("bm25", WORDS))}
    fused = fuse({"splade": MODEL, "bm25": WORDS}, rule, {"splade": 0.75, "bm25": 0.25})
    expected = {d: 0.75 * alone["splade"].get(d, 0) + 0.25 * alone["bm25"].get(d, 0) for d in fused}
    assert fused == pytest.approx(expected) and fused.keys() == MODEL.keys() | WORDS.keys()


@pytest.mark.parametrize("rule", ["scores", "ranks"])
def test_what_is_not_above_zero_adds_nothing(rule):
    assert fuse({"dense": {"a": 0.5, "b": 0.0, "c": -0.1}, "bm25": {}}, rule).keys() == {"a"}
    assert fuse({"dense": {"a": -0.5}, "bm25": WORDS}, rule) == fuse({"bm25": WORDS}, rule)
