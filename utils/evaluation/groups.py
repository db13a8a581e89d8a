"""Queries in groups, by what is known of them and by what can be seen of them, and how good systems are on each."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from utils.evaluation.collection import Collection
from utils.evaluation.significance import CHANCE, Difference, paired_difference
from utils.evaluation.systems import Evaluation
from utils.languages import detect_language
from utils.search.lexical import TermCounter

LENGTHS = ((3, "1 to 3 words"), (7, "4 to 7 words"), (15, "8 to 15 words"))  # longest query of a group, and its name
LONGER = "16 words or more"
SHARES = ((0.0, "none"), (0.5, "up to half"), (1.0, "more than half"))  # of a query's words in its answers
MAX_VALUES = 20  # of a field; one with more is no group but a name

Grouping = dict[str, str]  # group by query id


class GroupRow(NamedTuple):
    """How good each system is on a group of queries, and how far the last one is above the first, None with one."""

    group: str
    queries: int
    means: list[float]
    difference: Difference | None

    @property
    def sure(self) -> bool:
        """Whether chance makes a difference like this in less than one of 20 groups, by interval and test."""
        return (
            bool(self.difference)
            and self.difference.p < CHANCE
            and not self.difference.low <= 0 <= self.difference.high
        )


def group_queries(data: Collection, language: str | None = None) -> dict[str, Grouping]:
    """Return the groups of the queries, by what they are grouped by: `query length`, `words in the answer` (the share
    of a query's words, stemmed and without stop words, that the relevant document with most of them has) and each field
    of the queries that has from two to MAX_VALUES values."""
    groups = {"query length": {query: _length(text) for query, text in data.queries.items()}}
    if data.documents:
        groups["words in the answer"] = _word_groups(data, language)
    for name in dict.fromkeys(name for fields in data.fields.values() for name in fields):
        if name in groups:
            continue
        values = {query: data.fields[query][name] for query in data.queries if name in data.fields.get(query, {})}
        if 2 <= len(set(values.values())) <= MAX_VALUES:
            groups[name] = values
    return groups


def compare_groups(
    grouping: Grouping, data: Collection, evaluations: Sequence[Evaluation], metric: str
) -> list[GroupRow]:
    """Return a row for each group, with the means of a metric. Queries in no group are left out."""
    queries = list(data.qrels)
    rows = []
    for group in sorted(set(grouping.values()), key=_place):
        inside = np.array([grouping.get(query) == group for query in queries])
        values = [evaluation.values[metric][inside] for evaluation in evaluations]
        difference = paired_difference(values[-1], values[0]) if len(values) > 1 else None
        rows.append(GroupRow(group, int(inside.sum()), [float(part.mean()) for part in values], difference))
    return rows


def _place(group: str) -> tuple[int, str]:
    known = [name for _, name in LENGTHS] + [LONGER] + [name for _, name in SHARES]
    return known.index(group) if group in known else 0, group


def _length(text: str) -> str:
    words = len(text.split())
    return next((name for longest, name in LENGTHS if words <= longest), LONGER)


def _word_groups(data: Collection, language: str | None) -> Grouping:
    texts = {document.id: document.full_text for document in data.documents}
    count = TermCounter(language or detect_language(list(texts.values()))).count
    relevant = {document for grades in data.qrels.values() for document, grade in grades.items() if grade > 0}
    words = {name: set(count(texts[name]).indices.tolist()) for name in relevant if name in texts}
    return {query: _shared(count, text, data.qrels[query], words) for query, text in data.queries.items()}


def _shared(count: Callable, query: str, grades: dict[str, int], words: dict[str, set[int]]) -> str:
    asked = set(count(query).indices.tolist())
    answers = [words[name] for name, grade in grades.items() if grade > 0 and name in words]
    share = max((len(asked & answer) / len(asked) for answer in answers), default=0.0) if asked else 0.0
    return next(name for highest, name in SHARES if share <= highest)
