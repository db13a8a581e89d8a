"""Searches for several requests together: hits with what shows on the page why they matched."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.search.filters import Condition
from utils.search.highlighting import Highlighter
from utils.search.searcher import DocumentSearch, EncodedQuery
from utils.serving.metrics import Metrics

MAX_TERMS = 12  # of a hit, that are answered


class Query(NamedTuple):
    """A request to search: `kind` and `where` as `DocumentSearch` has them, by these variants."""

    text: str
    top_k: int
    kind: str
    where: Sequence[Sequence[Condition]]
    variants: Sequence[str]


def answer_queries(searches: dict[str, DocumentSearch], metrics: Metrics) -> Callable[[Sequence[Query]], Iterator]:
    """Return a function that yields, for each of several queries, its results, or its error, such as that of a filter
    that cannot be: [{"variant", "model", "cut", "hits", "milliseconds": {"encode", "search"}}, ...], one of each
    variant."""
    highlighters = {variant: Highlighter(search, MAX_TERMS) for variant, search in searches.items()}

    def answer(queries: Sequence[Query]) -> Iterator[list[dict[str, Any]] | Exception]:
        metrics.together.observe(len(queries))
        encoded = {}
        for variant, kind in {(variant, query.kind) for query in queries for variant in query.variants}:
            asking = [place for place, query in enumerate(queries) if query.kind == kind and variant in query.variants]
            search = copy.copy(searches[variant])
            search.search_by(kind)
            started = time.perf_counter()
            vectors = search.encode_together([queries[place].text for place in asking])
            seconds = time.perf_counter() - started
            for place, vector in zip(asking, vectors):
                encoded[place, variant] = search, vector, seconds
                metrics.seconds.labels(variant, "encode").observe(seconds)
        for place, query in enumerate(queries):
            try:
                yield [result(query, variant, *encoded[place, variant]) for variant in query.variants]
            except Exception as error:  # is this query's alone
                yield error

    def result(
        query: Query, variant: str, search: DocumentSearch, vector: EncodedQuery, encoding: float
    ) -> dict[str, Any]:
        search = copy.copy(search)
        search.where = query.where
        started = time.perf_counter()
        hits = find_hits(search, highlighters[variant], vector, query.top_k)
        searching = time.perf_counter() - started
        metrics.seconds.labels(variant, "search").observe(searching)
        cut = search.model.tokenize_and_count_queries([vector.expanded])[1] > 0  # at the model's limit
        milliseconds = {"encode": round(1000 * encoding, 1), "search": round(1000 * searching, 1)}
        name = Path(search.model.name).name  # a folder's place is nobody's business
        return {"variant": variant, "model": name, "cut": cut, "hits": hits, "milliseconds": milliseconds}

    return answer


def find_hits(
    search: DocumentSearch, highlighter: Highlighter, query: EncodedQuery, top_k: int
) -> list[dict[str, Any]]:
    """Return the best hits, as JSON.

    Returns:
        [{"rank", "id", "title", "heading", "score", "metadata", "passage", "text", "spans", "terms", "words"}, ...]:
        as `DocumentSearch.find` has them; `text` is the whole passage, `spans` where the matched words stand in it, in
        UTF-16 units as browsers count them, and `terms` the MAX_TERMS heaviest rows of `DocumentSearch.explain`.
    """
    found = search.look_up(search.rank(query, top_k))
    explained = highlighter.explain(query, [passage for _, _, passage in found], search.legs)
    return [
        {
            "rank": rank,
            "id": document.id,
            "title": document.title,
            "heading": passage.heading,
            "score": round(hit.score, 4),
            "metadata": _finite(document.metadata),
            "passage": hit.passage,
            "text": passage.text,
            "spans": _utf16_spans(passage.text, spans),
            "terms": [_term(row) for row in rows],
            "words": search.matched_words(query, passage),
        }
        for rank, ((hit, document, passage), (spans, rows)) in enumerate(zip(found, explained), 1)
    ]


def _term(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {name.replace(" ", "_"): round(row[name], 4) for name in ("share", "in query", "in passage")}
    return {
        "term": row["term"],
        **numbers,
        "expansion_of": row["expansion of"].split(" and ") if row["expansion of"] else [],
    }


def _finite(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata with the names of numbers that JSON does not have, NaN and infinity."""
    return json.loads(json.dumps(metadata), parse_constant=str)


def _utf16_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if text.isascii():
        return list(spans)
    return [(_utf16_length(text[:start]), _utf16_length(text[:end])) for start, end in spans]


def _utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
