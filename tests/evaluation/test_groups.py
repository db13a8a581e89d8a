"""Queries in groups, and how good systems are on each."""

import numpy as np

from utils.evaluation.collection import Collection
from utils.evaluation.groups import compare_groups, group_queries
from utils.evaluation.systems import Evaluation
from utils.records import Document

DATA = Collection(
    [
        Document(id="d1", title="Brakes", text="Bleed the brakes at the rear wheel first."),
        Document(id="d2", text="Warm air needs two minutes."),
    ],
    {
        "q1": "bleeding brakes",
        "q2": "how long until the cabin gets hot on a morning with snow and ice outside",
        "q3": "which wheel is first when the fluid is replaced",
        "q4": "brake",
    },
    {"q1": {"d1": 1}, "q2": {"d2": 1}, "q3": {"d1": 2, "d2": -1}, "q4": {"d2": 1, "gone": 1}},
    {"q1": {"query_type": "keyword", "author": "a"}, "q2": {"query_type": "question", "author": "a"}, "q3": {"n": "1"}},
)


def test_queries_are_grouped_by_length_by_words_of_the_answer_and_by_their_fields():
    groups = group_queries(DATA, "en")
    assert groups == {
        "query length": {
            "q1": "1 to 3 words",
            "q2": "8 to 15 words",
            "q3": "8 to 15 words",
            "q4": "1 to 3 words",
        },
        # Stems count, stop words do not; only what is relevant is an answer.
        "words in the answer": {"q1": "more than half", "q2": "none", "q3": "up to half", "q4": "none"},
        "query_type": {"q1": "keyword", "q2": "question"},
    }


def test_a_group_has_its_means_and_the_difference_of_the_last_system_to_the_first():
    systems = [
        Evaluation(name, {}, {"AP": np.array(values)}, {})
        for name, values in (("a", [0.0, 1.0, 0.0, 0.5]), ("b", [1.0, 0.0, 0.0, 0.5]), ("c", [0.5, 1.0, 0.5, 0.5]))
    ]
    rows = compare_groups(group_queries(DATA, "en")["query length"], DATA, systems, "AP")
    assert [row[:3] for row in rows] == [
        ("1 to 3 words", 2, [0.25, 0.75, 0.5]),
        ("8 to 15 words", 2, [0.5, 0.0, 0.75]),
    ]
    assert [row[3].mean for row in rows] == [0.25, 0.25] and rows[0][3].low < rows[0][3].high
    assert compare_groups({"q2": "x"}, DATA, systems[:1], "AP") == [("x", 1, [1.0], None)]


def test_a_field_of_many_values_is_no_group():
    names = [str(i) for i in range(30)]
    data = Collection([], {name: "text" for name in names}, {}, {name: {"serial": name} for name in names})
    assert group_queries(data).keys() == {"query length"}
