"""Metrics on a run worked out by hand."""

import math

import pytest

from utils.evaluation import metrics as module
from utils.evaluation.collection import Collection
from utils.evaluation.fusion_weights import learn_weights
from utils.evaluation.metrics import check_metrics, score_run, search_depth
from utils.evaluation.systems import evaluate_bm25, evaluate_model, evaluate_search, index_collection
from utils.records import Document
from utils.search.searcher import DocumentSearch


def test_metrics_of_a_known_run():
    qrels = {"q1": {"a": 1}, "q2": {"b": 1, "c": 1}}
    run = {"q1": {"x": 3.0, "a": 2.0}, "q2": {"b": 2.0, "c": 1.0}}
    metrics = score_run(qrels, run.items()).means
    assert metrics["RR@10"] == pytest.approx((0.5 + 1) / 2)
    assert metrics["nDCG@10"] == pytest.approx((1 / math.log2(3) + 1) / 2)
    assert metrics["P@5"] == pytest.approx((1 / 5 + 2 / 5) / 2)
    assert metrics["R@100"] == 1


def test_a_query_without_results_counts_as_zero():
    scores = score_run({"q1": {"a": 1}, "q2": {"a": 1}}, [("q2", {"a": 1.0})])
    assert scores.means["RR@10"] == 0.5 and scores.values["RR@10"].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["nonsense", "nDCG@", "P@-1", "alpha_nDCG@5(alpha=x)", "ERR@10", "AP(rel=0)", "RBP"])
def test_metrics_that_cannot_be_computed_are_refused(name, capfd):
    with pytest.raises(ValueError, match="metric"):
        check_metrics(["nDCG@10", name])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["nDCG@0", "RR@0", "P@0", "Success(rel=1)@0"])
def test_a_cutoff_below_1_is_refused(name):
    with pytest.raises(ValueError, match="its cutoff must be at least 1") as raised:
        check_metrics([name])
    assert f"'{name}'" in str(raised.value)


def test_a_metric_is_as_deep_as_its_cutoff_and_all_documents_deep_without_one():
    assert search_depth(["nDCG@10", "R@300"], 1000) == 300
    assert search_depth(["R@300"], 200) == 200
    for name in ("AP", "nDCG", "Rprec", "RR", "P(judged_only=True)@5"):
        assert search_depth(["nDCG@10", name], 1000) == 1000


def test_a_relevant_document_below_the_first_100_counts(tiny, monkeypatch):
    texts = ["fruit", *(f"fruit {'fruit ' * (i % 5)} salad number {i}" for i in range(150))]
    documents = [Document(id=str(i), text=text) for i, text in enumerate(texts)]
    queries = {"q1": "fruit salad number", "q2": "a much longer query about yellow fruit in a bowl"}
    data = Collection(documents, queries, {query: {str(i): 1 for i in range(151)} for query in queries})
    monkeypatch.setattr(module, "HITS_HELD", 100)  # so that the queries are evaluated in two parts
    for found in (evaluate_bm25(data, ["AP", "R@120"]), evaluate_model("tiny", tiny, data, ["AP", "R@120"])):
        assert found.means["AP"] > 0.95 and found.means["R@120"] == pytest.approx(120 / 151)
    lengths = [len(tiny.encode_query(query).indices) for query in queries.values()]
    assert found.costs.query_terms == sum(lengths) / 2  # each query counts once


def test_a_long_document_counts_once_and_by_all_of_its_text(tiny):
    texts = ["fruit salad " * 700 + "served with whipped cream", *(f"fruit number {i}" for i in range(20))]
    documents = [Document(id=str(i), text=text) for i, text in enumerate(texts)]
    everything = {str(i): 1 for i in range(21)}
    data = Collection(documents, {"q1": "fruit", "q2": "whipped cream"}, {"q1": everything, "q2": {"0": 1}})
    found = evaluate_model("tiny", tiny, data, ["R@21", "RR@1"])
    assert found.means == {"R@21": 1, "RR@1": 1} and found.long_documents == 1


def test_a_hybrid_row_is_that_of_the_fused_scores(tiny):
    texts = [
        "Error 0x80070057 while printing",
        "Error 0x80070005: printing fails, printer error code while printing",
        "printing errors",
    ]
    documents = [Document(id=str(i), text=text) for i, text in enumerate(texts)]
    data = Collection(documents, {"q": "printing error 0x80070057"}, {"q": {"0": 1}})
    with index_collection(tiny, data) as index:
        searches = {kind: DocumentSearch(index, tiny, kind) for kind in ("splade", "bm25", "hybrid")}
        alone, words, hybrid = (evaluate_search(kind, search, data, ["RR@4"]) for kind, search in searches.items())
    one = {"RR@4": 1}
    assert alone.means["RR@4"] < 1 and words.means == hybrid.means == evaluate_bm25(data, ["RR@4"]).means == one
    assert alone.costs.doc_terms == hybrid.costs.doc_terms and alone.costs.query_terms == hybrid.costs.query_terms > 0
    assert words.costs.query_terms is None and words.costs.doc_terms is None


def test_weights_are_learned_from_what_judged_queries_say(tiny):
    texts = ["Error 0x80070057", "Printing fails with an error", "The printer", "Cars need an automobile mechanic"]
    data = Collection(
        [Document(id=str(i), text=text) for i, text in enumerate(texts)],
        {"by words": "error 0x80070057 printing fails", "by meaning": "vehicle repair"},
        {"by words": {"0": 1}, "by meaning": {"3": 1}},
    )
    with index_collection(tiny, data) as index:
        search = DocumentSearch(index, tiny)
        learned = learn_weights(search, data)
        assert learned.keys() <= {"splade", "bm25"} and sum(learned.values()) == pytest.approx(1)
        options = {"weights": {"splade": 0.5, "bm25": 0.5}}, {"weights": learned}
        equal, best = (
            evaluate_search("", DocumentSearch(index, tiny, **given), data, ["nDCG@10"]).means["nDCG@10"]
            for given in options
        )
        words_alone = Collection(data.documents, {"q": data.queries["by words"]}, {"q": {"1": 1}})
        assert best >= equal and learn_weights(search, words_alone) != learned
