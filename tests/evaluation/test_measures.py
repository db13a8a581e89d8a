"""Metrics of made-up runs are those of ir-measures and of trec_eval's library, however odd the runs."""

import ir_measures
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.evaluation.metrics import score_run
from utils.evaluation.trec import read_qrels, read_run, write_qrels, write_run

METRICS = ["nDCG@10", "nDCG", "AP", "AP@3", "RR@10", "RR", "P@5", "R@100", "Rprec", "Bpref", "Success@2", "Judged@10"]
METRICS += ["AP(rel=2)", "P(rel=2)@3", "SetP", "NumRet"]
names = st.text("abcd1é/-:", min_size=1, max_size=3)
grades = st.dictionaries(names, st.integers(-3, 3), min_size=1, max_size=8).filter(lambda of: max(of.values()) >= 0)
qrels = st.dictionaries(names, grades, min_size=1, max_size=6)
# Scores of few values, so that there are ties, and documents that nobody judged.
hits = st.dictionaries(names, st.sampled_from([-1.5, 0.0, 0.25, 1.0, 7.5]), max_size=12)
runs = st.dictionaries(names, hits, max_size=8)


@settings(max_examples=150, deadline=None)
@given(qrels=qrels, run=runs)
def test_each_value_and_mean_is_that_of_ir_measures(qrels, run):
    asked = {query: hits for query, hits in run.items() if query in qrels and hits}
    scores = score_run(qrels, ((query, hits) for query, hits in run.items() if query in qrels), METRICS)
    measures = {name: ir_measures.parse_measure(name) for name in METRICS}
    means = ir_measures.calc_aggregate(measures.values(), qrels, asked)
    assert scores.means == pytest.approx({name: means[measure] for name, measure in measures.items()})
    for value in ir_measures.iter_calc(measures.values(), qrels, asked):
        name = next(name for name, measure in measures.items() if measure == value.measure)
        assert scores.values[name][list(qrels).index(value.query_id)] == pytest.approx(value.value)


@settings(max_examples=50, deadline=None)
@given(qrels=qrels, run=runs)
def test_written_runs_and_judgments_give_another_tool_the_same_figures(qrels, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trec")
    run = {query: hits for query, hits in run.items() if hits and query in qrels}
    write_qrels(folder / "qrels", qrels)
    write_run(folder / "run", "a system", run)
    assert read_qrels(folder / "qrels") == qrels
    if not run:
        return
    assert read_run(folder / "run") == run
    with (folder / "qrels").open() as judged, (folder / "run").open() as found:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(judged), {"ndcg_cut_10", "map", "P_5"})
        values = evaluator.evaluate(pytrec_eval.parse_run(found))
    ours = score_run(qrels, run.items(), ["nDCG@10", "AP", "P@5"]).values
    for query, figures in values.items():
        place = list(qrels).index(query)
        assert [ours[name][place] for name in ours] == pytest.approx(
            [figures[n] for n in ("ndcg_cut_10", "map", "P_5")]
        )


def test_a_query_without_a_grade_of_0_or_more_has_nothing_to_find():
    qrels = {"q1": {"a": -3, "b": -2}, "q2": {"a": 1, "b": -3}}
    run = {"q1": {"a": 2.0, "b": 1.0}, "q2": {"a": 2.0, "b": 1.0}}
    for _ in range(50):  # the library that counts for ir-measures corrupts memory on such grades
        assert score_run(qrels, run.items(), ["AP", "nDCG@10"]).values["AP"].tolist() == [0, 1]
