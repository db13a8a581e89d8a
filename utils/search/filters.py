"""Filters: conditions on the fields of documents' metadata, and the values that they are compared with."""

import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

CONDITION = re.compile(r"(.+?)(>=|<=|!=|=|>|<)(.*)", re.DOTALL)
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ].*)?")
MAX_DIGITS = 15  # of a number; one with more may be rounded, and is a name, such as of an article
MAX_CHARACTERS = 256  # of a text that can be asked for; a longer one is no label

Value = float | str


class Condition(NamedTuple):
    """What a filter asks of a field: that one of its values stands in this relation, = != < <= > >=, to this one."""

    field: str
    relation: str
    value: Value


def parse_filters(filters: Sequence[str]) -> list[list[Condition]]:
    """Parse `year>=2020`, `source=manual`, `language!=de`. All of the lists that are returned have to hold, and of each
    at least one condition: several `=` of one field are alternatives.

    Raises:
        ValueError: a filter without field or relation, or an order of texts.
    """
    alternatives: dict[str, list[Condition]] = {}
    for text in filters:
        match = CONDITION.fullmatch(text)
        name, relation, given = (part.strip() for part in match.groups()) if match else ("", "", "")
        if not name or not given:
            raise ValueError(f"filter '{text}': expected a field, one of = != < <= > >=, and a value, as in year>=2020")
        value = filter_value(given)
        if relation not in ("=", "!=") and isinstance(value, str):
            raise ValueError(f"filter '{text}': {relation} is for numbers and dates, such as 2020 or 2020-12-31")
        key = name if relation == "=" else text
        alternatives.setdefault(f"{relation} {key}", []).append(Condition(name, relation, value))
    return list(alternatives.values())


def check_fields(where: Sequence[Sequence[Condition]], known: Collection[str]) -> None:
    """Check that each field that is asked for is one that some document has.

    Raises:
        ValueError: one is not.
    """
    for condition in (condition for alternatives in where for condition in alternatives):
        if condition.field not in known:
            names = ", ".join(sorted(known)) or "no fields at all"
            raise ValueError(f"filter on '{condition.field}': no document has this field; they have {names}")


def filter_value(value: Any) -> Value:
    """Return what a value is compared as: a number, also of digits in a text and, in seconds, of an ISO 8601 date; or
    a text."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (int, float)):
        return float(value) if abs(value) < 10**MAX_DIGITS else str(value)
    text = str(value).strip()
    if NUMBER.fullmatch(text) and len(text) <= MAX_DIGITS:
        return float(text)
    if DATE.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            return text
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return text


def field_values(metadata: dict[str, Any]) -> dict[str, list[Value]]:
    """Return the values by field of a document's metadata: of a list each value, of an object those of its fields, as
    `name.field`. Fields without a value and long texts are left out."""
    values: dict[str, list[Value]] = {}
    for name, value in _leaves("", metadata):
        compared = filter_value(value)
        if not isinstance(compared, str) or len(compared) <= MAX_CHARACTERS:
            values.setdefault(name, []).append(compared)
    return values


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(name, part)
    elif value is not None:
        yield name, value
