"""Metrics on a run worked out by hand."""

import math

import pytest

from utils.evaluation.metrics import check_metrics, evaluate_run


def test_metrics_of_a_known_run():
    qrels = {"q1": {"a": 1}, "q2": {"b": 1, "c": 1}}
    run = {"q1": {"x": 3.0, "a": 2.0}, "q2": {"b": 2.0, "c": 1.0}}
    metrics = evaluate_run(qrels, run)
    assert metrics["RR@10"] == pytest.approx((0.5 + 1) / 2)
    assert metrics["nDCG@10"] == pytest.approx((1 / math.log2(3) + 1) / 2)
    assert metrics["P@5"] == pytest.approx((1 / 5 + 2 / 5) / 2)
    assert metrics["R@100"] == 1


def test_a_query_without_results_counts_as_zero():
    assert evaluate_run({"q1": {"a": 1}, "q2": {"a": 1}}, {"q1": {"a": 1.0}})["RR@10"] == 0.5


@pytest.mark.parametrize("name", ["nonsense", "nDCG@", "R@1000"])
def test_metrics_that_cannot_be_measured_are_refused(name):
    with pytest.raises(ValueError, match="metric"):
        check_metrics(["nDCG@10", name])
