"""Filters: conditions on the fields of documents' metadata, and what of these they are compared with.

A value is held as a text, for = and !=, and, for an order, also as a number or as a point in time if it reads as one.
"""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

CONDITION = re.compile(r"(.+?)(>=|<=|!=|==|=|>|<)(.*)", re.DOTALL)
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)([T ].*)?)?)?")
MAX_CHARACTERS = 256  # of a text that is held
TEXT, NUMBERS, TIMES = "text", "number", "time"  # kinds of values; of the last two the values are floats

Values = dict[str, list[float] | list[str]]  # by kind


class Comparison(NamedTuple):
    """That a value of this kind is one of `texts`, or at least `low` and below `high` (or `high` itself)."""

    kind: str
    texts: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False  # `low` itself is not enough
    with_high: bool = False


class Condition(NamedTuple):
    """What a filter asks of a field: that one of the tests holds for one of its values; or, `negated`, none for any."""

    field: str
    tests: tuple[Comparison, ...]
    negated: bool = False


def parse_filters(filters: Sequence[str]) -> list[list[Condition]]:
    """Parse `year>=2020`, `source=manual`, `language!=de`. All of the lists that are returned have to hold, and of each
    at least one condition: several `=` of one field are alternatives.

    Raises:
        ValueError: a filter without field or relation, with an order of texts, or with too long a value.
    """
    alternatives: dict[str, list[Condition]] = {}
    for text in filters:
        match = CONDITION.fullmatch(text)
        name, relation, value = (part.strip() for part in match.groups()) if match else ("", "", "")
        if not name or not value or value[0] in "=<>":
            raise ValueError(f"filter '{text}': expected a field, one of = != < <= > >=, and a value, as in year>=2020")
        if len(value) > MAX_CHARACTERS:
            raise ValueError(f"filter on '{name}': values of more than {MAX_CHARACTERS} characters are not kept")
        if relation in ("=", "==", "!="):
            tests = _equals(value)
        else:
            tests = tuple(_ordered(relation, value))
            if not tests:
                raise ValueError(f"filter '{text}': {relation} is for numbers and dates, such as 2020 or 2020-12-31")
        key = f"= {name}" if relation in ("=", "==") else text
        alternatives.setdefault(key, []).append(Condition(name, tests, relation == "!="))
    return list(alternatives.values())


def _equals(value: str) -> tuple[Comparison, ...]:
    spellings = (value, value.lower(), value.title(), value.upper()) if value.lower() in ("true", "false") else (value,)
    span = _time_span(value)
    times = (Comparison(TIMES, (), *span, with_high=span[0] == span[1]),) if span else ()
    return (Comparison(TEXT, tuple(dict.fromkeys(spellings))), *times)


def _ordered(relation: str, value: str) -> Iterator[Comparison]:
    spans = {NUMBERS: (_number(value),) * 2 if _number(value) is not None else None, TIMES: _time_span(value)}
    for kind, span in spans.items():
        if span:
            low, high = span  # a day, a month or a year begins and ends
            instant = low == high
            yield {
                ">": Comparison(kind, low=high, above_low=instant),
                ">=": Comparison(kind, low=low),
                "<": Comparison(kind, high=low),
                "<=": Comparison(kind, high=high, with_high=instant),
            }[relation]


def check_fields(where: Sequence[Sequence[Condition]], known: Collection[str]) -> None:
    """Check that each field that is asked for is one that some document has, or had.

    Raises:
        ValueError: one is not.
    """
    for condition in (condition for alternatives in where for condition in alternatives):
        if condition.field not in known:
            names = ", ".join(sorted(known)) or "no fields at all"
            raise ValueError(f"filter on '{condition.field}': no document has this field; they have {names}")


def field_values(metadata: dict[str, Any]) -> dict[str, Values]:
    """Return the values by field and kind of a document's metadata: of a list each value, of an object those of its
    fields, as `name.field`. Fields without a value and long texts are left out."""
    values: dict[str, Values] = {}
    for name, value in _leaves("", metadata):
        text = str(value).lower() if isinstance(value, bool) else _plain(value)
        if len(text) <= MAX_CHARACTERS:
            held = values.setdefault(name, {})
            held.setdefault(TEXT, []).append(text)
            number, span = _number(text), _time_span(text) if "-" in text else None
            if number is not None:
                held.setdefault(NUMBERS, []).append(number)
            if span:
                held.setdefault(TIMES, []).append(span[0])
    return values


def _plain(value: Any) -> str:
    """Return a value as it would be typed: 2020 for 2020.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _number(text: str) -> float | None:
    number = float(text) if NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _time_span(text: str) -> tuple[float, float] | None:
    """Return when a year, a month or a day of ISO 8601 begins and ends, in seconds since 1970 in UTC, or, twice, a
    point in time; None for another text."""
    match = DATE.fullmatch(text)
    if not match:
        return None
    year, month, day, clock = match.groups()
    try:
        if clock:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
            return seconds, seconds
        start = datetime(int(year), int(month or 1), int(day or 1), tzinfo=timezone.utc)
        if day:
            end = start + timedelta(days=1)
        elif month:
            end = (start + timedelta(days=31)).replace(day=1)
        else:
            end = start.replace(year=start.year + 1)
    except (ValueError, OverflowError):
        return None
    return start.timestamp(), end.timestamp()


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(name, part)
    elif value is not None:
        yield name, value
