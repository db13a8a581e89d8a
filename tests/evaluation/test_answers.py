"""The sentences at the top of a report."""

import numpy as np
import pytest

from utils.evaluation.answers import find_answers, format_bytes, last_comparisons, worse_groups
from utils.evaluation.collection import Collection
from utils.evaluation.comparison import compare
from utils.evaluation.results import Results, gather_results
from utils.evaluation.significance import paired_difference
from utils.evaluation.systems import Costs, Evaluation


def compared(differences, name: str = "here") -> Results:
    """The results of "old" and "new", whose values are apart by these differences; the first ten queries are a
    group."""
    queries = [f"q{place}" for place in range(len(differences))]
    old = np.full(len(queries), 0.5)
    systems = [
        Evaluation(system, {"AP": float(values.mean())}, {"AP": values}, {}, Costs(doc_terms=terms, query_terms=9))
        for system, values, terms in (("old", old, 80), ("new", old + differences, 120))
    ]
    data = Collection([], dict.fromkeys(queries, "text"), {query: {"d": 1} for query in queries})
    grouping = {query: "first" if place < 10 else "rest" for place, query in enumerate(queries)}
    return gather_results(name, data, systems, "AP", {"place": grouping})


def answers(*everything: Results, causes: dict[str, int] | None = None) -> dict[str, str]:
    return {question: " ".join(found) for question, found in find_answers(everything, causes or {})}


NOISE = np.tile([0.2, -0.19], 20)


@pytest.mark.parametrize(
    ("differences", "advice"),
    [
        (np.full(40, 0.1), "Use new, if it is worth what it costs."),
        (
            np.array([-0.2] * 10 + [-0.1] * 30),
            "Keep old. Train on more queries like those of the weakest group: place, first.",
        ),
        (NOISE, "Judge more queries, about {needed} in all, or choose by what the two cost."),
        (np.zeros(40), "Choose between new and old by what they cost."),
    ],
)
def test_what_to_do_next_follows_from_the_verdict(differences, advice):
    results = compared(differences)
    needed = results.comparisons[0].needed
    assert answers(results)["What to do next?"] == advice.replace("{needed}", f"{needed or 0:,}")


def test_a_group_is_worse_where_its_whole_interval_is_below_zero():
    differences = np.full(40, 0.2)
    assert answers(compared(differences))["For whom is it worse?"].startswith("In none of the 2 groups of queries")
    differences[:10] = np.linspace(-0.3, -0.1, 10)
    results = compared(differences)
    worse = answers(results)["For whom is it worse?"]
    assert worse.startswith(f"new is below old by place, first: {results.groups['place'][0].difference}, 10 queries. ")
    assert "of 2, one in forty is found worse by chance" in worse and "rest" not in worse


def test_what_is_worse_on_another_collection_is_said():
    here, lost = compared(np.full(40, 0.1)), compared(np.full(40, -0.1), "there")
    assert f"On there: {lost.comparisons[0]}." in answers(here, lost)["For whom is it worse?"]
    assert "On there" not in answers(here, here._replace(name="there"))["For whom is it worse?"]


def test_the_most_frequent_cause_of_errors_comes_first():
    found = answers(compared(NOISE), causes={"text cut": 2, "wrong expansion": 7})
    assert "the most frequent cause of errors: wrong expansion, 7 of 9." in found["What to do next?"]


def test_costs_are_those_that_are_known():
    assert answers(compared(NOISE))["What does it cost?"] == (
        "old: 80 terms a document and 9 a query. new: 120 terms a document and 9 a query."
    )
    results = compared(NOISE)
    unknown = results._replace(evaluations=[system._replace(costs=Costs()) for system in results.evaluations])
    assert answers(unknown)["What does it cost?"] == "old: not known. new: not known."


def test_sizes_are_in_decimal_units():
    sizes = {0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 4_210_000: "4.2 MB", 3 * 10**12: "3,000.0 GB"}
    assert {size: format_bytes(size) for size in sizes} == sizes


def test_a_group_of_few_queries_is_not_worse_for_sure():
    differences = np.full(40, 0.2)
    differences[:3] = -0.3
    results = compared(differences)
    rows = [
        row._replace(queries=3, difference=paired_difference(np.zeros(3), np.full(3, 0.3)))
        for row in results.groups["place"]
    ]
    assert all(row.difference.high < 0 and not row.sure for row in rows)
    assert not worse_groups(results._replace(groups={"place": rows}))


def test_the_last_system_is_compared_with_each_other_one():
    systems = [
        Evaluation(name, {"AP": 0.0}, {"AP": np.arange(20.0) % (i + 2)}, {})
        for i, name in enumerate(("bm25", "untuned", "tuned", "hybrid"))
    ]
    results = Results("data", Collection([], {}, {}), systems, "AP", compare(systems, "AP", 2), {})
    assert [(pair.system, pair.baseline) for pair in last_comparisons(results)] == [
        ("hybrid", "bm25"),
        ("hybrid", "untuned"),
        ("hybrid", "tuned"),
    ]
