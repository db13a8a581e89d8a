"""Filters as they are typed, against the values of metadata."""

import math

import pytest

from utils.search.filters import check_fields, field_values, parse_filters

DAY = 86_400


def meets(text, value):
    """Return whether a document with this value in its field `x` meets a filter."""
    ((condition,),) = parse_filters([text])
    held = field_values({"x": value}).get("x", {})
    return condition.negated != any(
        item in test.texts
        if test.texts
        else (test.low <= item < test.high and not (test.above_low and item == test.low))
        or (test.with_high and item == test.high)
        for test in condition.tests
        for item in held.get(test.kind, [])
    )


@pytest.mark.parametrize(
    ("text", "those", "others"),
    [
        ("x=a b", ["a b", ["c", "a b"], " a b "], ["A b", "a", ["c"], None]),
        ("x==a", ["a"], ["=a"]),
        ("x=b=c", ["b=c"], ["b"]),
        (" x = a ", ["a"], ["b"]),
        ("x!=a", ["b", None, "A"], ["a", ["a", "b"]]),
        ("x=2020", [2020, 2020.0, "2020"], ["02020", 2021, "2020.5"]),
        ("x=2024", [2024, "2024-05-01", "2024-12-31T23:00", "2024-05"], ["2025-01-01", 2024.5]),
        ("x!=2024", ["2023-12-31", 2023], ["2024-05-01", 2024]),
        ("x=7", [7, "7"], ["007", 70]),
        ("x>=2020", [2020, 2021.5, "2020", "1e9", 1.7e18, "2020-05-01", "2021-01-01T00:00"], [2019, "a", "2019-12-31"]),
        ("x>2020", [2021, "2021-01-01"], [2020, "2020-12-31", "2020-05-01T12:00"]),
        ("x<2025", [2024.9, -3, "2024-12-31T23:59:59"], [2025, "2025-01-01", "none"]),
        ("x<=2025", [2025, "2025-12-31T10:00"], [2025.1, "2026-01-01"]),
        ("x>1e-3", [0.0011, 10**30], [0.001]),
        ("x>0.1234567890123455", [0.1234567890123456], [0.1234567890123454]),
        ("x=0.1234567890123456", [0.1234567890123456], [0.12345678901234]),
        ("x=9007199254740993", [9007199254740993, "9007199254740993"], [9007199254740992]),
        (
            "x=2024-05-01",
            ["2024-05-01", "2024-05-01T12:30"],
            ["2024-05-02", "2024-04-30"],
        ),
        ("x>2024-05-01", ["2024-05-02"], ["2024-05-01", "2024-05-01T23:59"]),
        ("x<=2024-05", ["2024-05-31T20:00", "2023-01-01"], ["2024-06-01"]),
        ("x<2024-05-01T12:00Z", ["2024-05-01T13:00+02:00"], ["2024-05-01T12:00", "2024-05-01T15:00+02:00"]),
        ("x<=2024-05-01T12:00Z", ["2024-05-01T12:00"], ["2024-05-01T12:01"]),
        ("x=2024-13-01", ["2024-13-01"], ["2024-12-01"]),
        ("x=True", [True, "true", "TRUE"], [False, "yes", 1]),
        ("x!=true", [False], [True]),
    ],
)
def test_filters_choose_values(text, those, others):
    assert all(meets(text, value) for value in those), [v for v in those if not meets(text, v)]
    assert not any(meets(text, value) for value in others), [value for value in others if meets(text, value)]


def test_several_equals_of_a_field_are_alternatives():
    def fields(*texts):
        return [[condition.field for condition in part] for part in parse_filters(texts)]

    assert fields("k=a", "y<3", "k==b") == [["k", "k"], ["y"]]
    assert fields("y>1", "y<3") == [["y"], ["y"]] and fields("k!=a", "k!=b") == [["k"], ["k"]]


@pytest.mark.parametrize(
    "text", ["year", "=2020", "year=", ">=", "", "kind>manual", "kind<=a1", "y=>2", "y=<2", "y>nan"]
)
def test_a_filter_that_cannot_be_read_is_named(text):
    with pytest.raises(ValueError, match=f"^filter '{text}': "):
        parse_filters([text])


def test_a_value_that_is_never_kept_is_refused():
    assert field_values({"x": "y" * 257}) == {} and field_values({"x": "y" * 256})
    with pytest.raises(ValueError, match="filter on 'x': values of more than 256 characters"):
        parse_filters([f"x={'y' * 257}"])


def test_metadata_are_values_by_field_and_kind():
    metadata = {"year": 2020.0, "tags": ["a", "2"], "by": {"name": "Ann", "ids": [1]}, "no": None, "day": "1970-01-02"}
    assert field_values(metadata) == {
        "year": {"text": ["2020"], "number": [2020.0]},
        "tags": {"text": ["a", "2"], "number": [2.0]},
        "by.name": {"text": ["Ann"]},
        "by.ids": {"text": ["1"], "number": [1.0]},
        "day": {"text": ["1970-01-02"], "time": [DAY]},
    }
    assert field_values({"x": math.inf, "y": math.nan}) == {"x": {"text": ["inf"]}, "y": {"text": ["nan"]}}


def test_a_field_that_no_document_has_is_named():
    check_fields(parse_filters(["year=1"]), {"year"})
    with pytest.raises(ValueError, match="filter on 'yeer': no document has this field; they have kind, year"):
        check_fields(parse_filters(["year=1", "yeer=1"]), {"year", "kind"})
