"""Runs of systems, and their fusion."""

import pytest

from utils.evaluation.collection import Collection
from utils.evaluation.runs import fuse_runs, run_model, values_by_query
from utils.records import Document

TEXTS = {
    "brakes": "To bleed the brakes, open the valve.",
    "heater": "The heater warms the cabin.",
    "oil": "Change the oil.",
}


def test_fused_scores_are_sums_of_shares_of_each_runs_highest():
    first = {"q": {"a": 30.0, "b": 20.0, "c": 10.0}, "r": {"a": 5.0}}
    second = {"q": {"c": 0.5, "d": 0.1}, "s": {"b": 2.0, "a": 2.0}}
    fused = fuse_runs(first, second)
    assert fused["q"] == pytest.approx({"a": 1.0, "b": 2 / 3, "c": 4 / 3, "d": 0.2})
    assert fused["r"] == {"a": 1.0} and fused["s"] == {"a": 1.0, "b": 1.0}
    assert fuse_runs(second, first) == fused and fuse_runs({"q": {}}, {}) == {"q": {}}


def test_a_models_run_has_a_value_of_each_query_and_the_terms(tiny):
    documents = [Document(id=name, text=text) for name, text in TEXTS.items()]
    queries = {"1": "valve of the brakes", "2": "oil", "3": "zzz qqq"}
    data = Collection(documents, queries, {"1": {"brakes": 1}, "2": {"heater": 1, "oil": 1}, "3": {"oil": 1}})
    run = run_model(data, tiny, "RR@1")
    assert run.values.tolist()[:2] == [1.0, 1.0] and max(run.hits["1"], key=run.hits["1"].get) == "brakes"
    assert (run.values == values_by_query(data, run.hits, "RR@1")).all()
    vectors = tiny.encode(list(TEXTS.values()))
    assert run.doc_terms == pytest.approx(sum(len(vector.indices) for vector in vectors) / 3)
    asked = [tiny.encode_query(text) for text in queries.values()]
    assert run.query_terms == pytest.approx(sum(len(vector.indices) for vector in asked) / 3)
