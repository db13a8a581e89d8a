"""What systems find on a collection, and what that costs."""

import numpy as np
import pytest

from utils.evaluation.collection import Collection
from utils.evaluation.systems import (
    Costs,
    Evaluation,
    evaluate_bm25,
    evaluate_model,
    evaluate_run,
    evaluate_search,
    flops,
    index_collection,
)
from utils.records import Document
from utils.search.searcher import DocumentSearch
from utils.splade.vectors import SparseVector

TEXTS = ["apples are red", "cherries are red, too", "a banana is yellow", "the sea is blue"]
DATA = Collection(
    [Document(id=f"d{i}", text=text) for i, text in enumerate(TEXTS)],
    {"q1": "red fruit", "q2": "yellow banana"},
    {"q1": {"d0": 1, "d1": 1}, "q2": {"d2": 1}},
)


def vector(*terms: int) -> SparseVector:
    return SparseVector(np.array(terms, np.int32), np.ones(len(terms), np.float32))


def test_flops_are_the_mean_number_of_products_of_a_query_and_a_passage():
    documents = [vector(1, 2), vector(2, 3, 9), vector(2), vector(7)]
    queries = [vector(2, 3), vector(1, 5, 11)]
    products = [len(np.intersect1d(q.indices, d.indices)) for q in queries for d in documents]
    counts = np.unique(np.concatenate([d.indices for d in documents]), return_counts=True)
    frequencies = SparseVector(counts[0].astype(np.int32), counts[1].astype(np.float32))
    assert flops(queries, frequencies, len(documents)) == pytest.approx(np.mean(products))
    assert flops([vector()], frequencies, 4) == flops(queries, vector(), 0) == 0


def test_costs_are_those_of_the_vectors_that_are_searched(tiny):
    vectors, queries = list(tiny.encode(TEXTS)), [tiny.encode_query(text) for text in DATA.queries.values()]
    with index_collection(tiny, DATA) as index:
        kinds = {kind: evaluate_search(kind, DocumentSearch(index, tiny, kind), DATA) for kind in ("splade", "hybrid")}
    costs = kinds["splade"].costs
    terms = [len(vector.indices) for vector in vectors]
    assert costs.doc_terms == np.mean(terms) and costs.query_terms == np.mean([len(q.indices) for q in queries])
    products = [len(np.intersect1d(q.indices, d.indices)) for q in queries for d in vectors]
    assert costs.flops == pytest.approx(np.mean(products))
    assert costs.index_bytes == 6 * sum(terms)  # a term's number and a weight of two bytes
    assert kinds["hybrid"].costs.index_bytes > costs.index_bytes and kinds["hybrid"].costs.flops is None
    assert len(costs.encode_ms) == len(costs.search_ms) == 2 and (costs.search_ms > 0).all()
    row = kinds["splade"].row()
    both = costs.encode_ms + costs.search_ms
    assert row["query_latency_ms"]["p50"] == pytest.approx(np.median(both), abs=1e-3)
    assert row["queries_per_second"] == pytest.approx(1000 / both.mean())


def test_the_costs_of_bm25_are_those_of_words():
    costs = evaluate_bm25(DATA, language="en").costs
    assert costs.doc_terms == 2 and costs.query_terms == 1.5  # "too" is a stop word, "fruit" in no document
    assert costs.flops == pytest.approx((2 + 2) / (2 * 4))


def test_a_query_that_is_a_document_is_not_found_by_itself_however_it_is_searched(tiny):
    argument = Document(id="a", text="apples are red")
    data = Collection([argument, *DATA.documents], {"a": argument.text}, {"a": {"d1": 1}})
    found = [evaluate_bm25(data, ["RR@10"], "en"), evaluate_model("tiny", tiny, data, ["RR@10"])]
    found.append(evaluate_run("run", {"a": {"d1": 1.0, "a": 3.0, "d0": 2.0}}, data, ["RR@10"]))
    for evaluation in found:
        assert list(evaluation.run["a"])[:2] == ["d0", "d1"] and evaluation.means == {"RR@10": 0.5}
    deep = evaluate_model("tiny", tiny, data, ["R@4"])
    assert "a" not in deep.run["a"] and deep.means["R@4"] == 1


def test_another_systems_run_is_ranked_by_its_scores_and_has_no_costs():
    run = {"q1": {"d3": 0.5, "d1": 2.0, "unknown": 1.0}, "elsewhere": {"d1": 1.0}}
    found = evaluate_run("run", run, DATA, ["RR@10", "R@10", "P@2"])
    assert found.values["RR@10"].tolist() == [1, 0] and found.values["P@2"].tolist() == [0.5, 0]
    assert list(found.run["q1"]) == ["d1", "unknown", "d3"] and found.run["q2"] == {}
    assert found.costs == Costs() and found.row() == {"model": "run", **found.means}


def test_a_row_leaves_out_what_is_not_known():
    row = Evaluation("a", {"AP": 0.5}, {}, {}, Costs(doc_terms=3.0), description="how").row()
    assert row == {"model": "a", "AP": 0.5, "doc_terms": 3.0, "description": "how"}


def test_a_run_is_kept_as_deep_as_the_metrics_look():
    documents = [Document(id=f"d{i}", text=f"apples number {i}") for i in range(300)]
    data = Collection(documents, {"q": "apples"}, {"q": {"d299": 1}})
    for metrics, depth in ((["RR@10"], 100), (["R@200"], 200), (["AP"], 300)):
        found = evaluate_bm25(data, metrics, "en")
        assert len(found.run["q"]) == depth and evaluate_run("again", found.run, data, metrics).means == found.means
