"""Filters as they are typed, and the values of metadata that they are compared with."""

import pytest

from utils.search.filters import Condition, check_fields, field_values, filter_value, parse_filters


@pytest.mark.parametrize(
    ("texts", "parsed"),
    [
        (["year>=2020"], [[("year", ">=", 2020.0)]]),
        (["a=b=c"], [[("a", "=", "b=c")]]),
        ([" first name = Ann Lee "], [[("first name", "=", "Ann Lee")]]),
        (["x!=-1.5"], [[("x", "!=", -1.5)]]),
        (["k=a", "y<3", "k=b"], [[("k", "=", "a"), ("k", "=", "b")], [("y", "<", 3.0)]]),
        (["y>1", "y<3"], [[("y", ">", 1.0)], [("y", "<", 3.0)]]),
        (["k!=a", "k!=b"], [[("k", "!=", "a")], [("k", "!=", "b")]]),
    ],
)
def test_filters_are_read_as_conditions(texts, parsed):
    assert parse_filters(texts) == [[Condition(*condition) for condition in part] for part in parsed]


@pytest.mark.parametrize("text", ["year", "=2020", "year=", ">=", "", "kind>manual", "kind<=a1"])
def test_a_filter_that_cannot_be_read_is_named(text):
    with pytest.raises(ValueError, match=f"^filter '{text}': "):
        parse_filters([text])


def test_a_value_is_compared_as_the_same_in_metadata_and_filter():
    assert filter_value(2020) == filter_value("2020") == filter_value("2020.0") == 2020.0
    assert filter_value(True) == filter_value("true") == "true"
    assert filter_value("2024-05-01") == filter_value("2024-05-01T00:00:00Z") == filter_value("2024-05-01 02:00+02:00")
    assert filter_value("2024-05-01") < filter_value("2024-05-02") and filter_value("2024-13-01") == "2024-13-01"
    long = "9007199254740993"  # 2**53 + 1, which a float cannot tell from its neighbor
    assert filter_value(long) == filter_value(int(long)) == long
    assert filter_value("1e5") == "1e5" and filter_value(float("nan")) == filter_value("nan") == "nan"


def test_metadata_are_values_by_field():
    metadata = {"year": 2020, "tags": ["a", "2"], "by": {"name": "Ann", "ids": [1]}, "no": None, "text": "x" * 300}
    values = {"year": [2020.0], "tags": ["a", 2.0], "by.name": ["Ann"], "by.ids": [1.0]}
    assert field_values(metadata) == values


def test_a_field_that_no_document_has_is_named():
    check_fields(parse_filters(["year=1"]), {"year"})
    with pytest.raises(ValueError, match="filter on 'yeer': no document has this field; they have kind, year"):
        check_fields(parse_filters(["year=1", "yeer=1"]), {"year", "kind"})
