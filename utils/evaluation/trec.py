"""TREC's files: topics, judgments (qrels) and runs, read and written."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lxml import etree

from utils.files import open_atomic

QRELS_HEADERS = {"score", "relevance", "rel", "label", "grade"}  # names of the last column, on a first line of names

MAX_GRADE = 10**6  # trec_eval's library counts with 32 bits
LABEL = re.compile(r"^(number|topic|title)\s*:\s*", re.I)  # before the value of an element in TREC's older topics


def read_topics(path: str | Path) -> dict[str, str]:
    """Read queries by id: lines of an id, a tab and the text, or TREC's topics, whose title is the query (`<top>` with
    `<num>`, closed or not, or XML's `<topic number="1">` with `<title>` or `<query>`).

    Raises:
        ValueError: broken or empty, or an id occurs twice.
        OSError: the file cannot be read.
    """
    path = Path(path)
    text = _read_text(path)
    topics = _tagged_topics(text, path) if text.lstrip().startswith("<") else _topic_lines(text, path)
    queries: dict[str, str] = {}
    for place, name, query in topics:
        if not name or not query:
            raise ValueError(f"{place}: a topic without {'a text' if name else 'an id'}")
        if name in queries:
            raise ValueError(f"{place}: topic {name} a second time")
        queries[name] = query
    if not queries:
        raise ValueError(f"{path}: holds no topics")
    return queries


def _topic_lines(text: str, path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            name, tab, query = line.partition("\t")
            if not tab:
                raise ValueError(f"{path}: line {number}: expected an id, a tab and the query's text, or TREC's topics")
            yield f"{path}: line {number}", name.strip(), " ".join(query.split())


def _tagged_topics(text: str, path: Path) -> Iterator[tuple[str, str, str]]:
    # TREC's older topics are no XML: elements are not closed, and labels such as "Number:" stand before the values.
    # So it is read as HTML, in which a title holds no elements: it has to be another one.
    text = re.sub(r"<(/?)title\b", r"<\1query", text, flags=re.I)
    tree = etree.fromstring(f"<topics>{text}</topics>".encode(), etree.HTMLParser(remove_comments=True))
    for number, topic in enumerate(tree.iter("top", "topic"), 1):
        name = topic.get("number") or _element(topic, "num")
        name, query = (LABEL.sub("", part) for part in (name, _element(topic, "query")))
        yield f"{path}: topic {number}", name, query


def _element(topic: etree._Element, tag: str) -> str:
    """Return the text at the beginning of an element, up to the next one, on one line."""
    found = topic.find(f".//{tag}")
    return "" if found is None else " ".join((found.text or "").split())


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read grades by query and document. A line is a query's id, a document's id and a grade, with tabs and a header as
    in BEIR, or those with a column between the ids, as in TREC.

    Raises:
        ValueError: a broken line or a second grade for the same document, named; or no judgment at all.
        OSError: the file cannot be read.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if not any(fields) or (number == 1 and fields[-1].lower() in QRELS_HEADERS):
            continue
        try:
            query, *iteration, document, grade = fields
            if len(iteration) > 1 or not float(grade).is_integer() or abs(float(grade)) > MAX_GRADE:
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path}: line {number}: expected query-id, corpus-id and a whole number up to a million, or TREC's "
                f"four columns, not '{line.strip()[:80]}'"
            ) from None
        value = int(float(grade))
        if qrels.setdefault(query, {}).setdefault(document, value) != value:
            raise ValueError(
                f"{path}: line {number}: document {document} has grade {value} for query {query}, and "
                f"{qrels[query][document]} before; keep one"
            )
    if not qrels:
        raise ValueError(f"{path}: holds no judgments")
    return qrels


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read scores by query and document of a run: lines of query-id, Q0, document-id, rank, score and a name.

    Raises:
        ValueError: a broken line or a document that a query has twice, named; or no line at all.
        OSError: the file cannot be read.
    """
    run: dict[str, dict[str, float]] = {}
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        fields = line.split("\t") if line.count("\t") == 5 else line.split()
        try:
            query, _, document, _, score, _ = fields
            if not math.isfinite(value := float(score)):
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path}: line {number}: expected a run's query-id, Q0, document-id, rank, score and name, "
                f"not '{line.strip()[:80]}'"
            ) from None
        if document in run.setdefault(query, {}):
            raise ValueError(f"{path}: line {number}: document {document} a second time for query {query}")
        run[query][document] = value
    if not run:
        raise ValueError(f"{path}: holds no run")
    return run


def write_run(path: str | Path, name: str, run: Mapping[str, Mapping[str, float]]) -> None:
    """Write a run, best documents first."""
    tag = "_".join(name.split())
    with open_atomic(path) as file:
        for query, hits in run.items():
            for rank, (document, score) in enumerate(hits.items(), 1):
                file.write(_line(query, "Q0", document, rank, repr(float(score)), tag))


def write_qrels(path: str | Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgments in TREC's four columns."""
    with open_atomic(path) as file:
        for query, grades in qrels.items():
            for document, grade in grades.items():
                file.write(_line(query, 0, document, grade))


def _line(*fields: object) -> str:
    """Return a line, with tabs where an id has a space in it; other space in an id becomes that."""
    parts = [re.sub(r"\s", " ", str(field)) for field in fields]
    return ("\t" if any(" " in part for part in parts) else " ").join(parts) + "\n"


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
