"""Test collections: documents, queries, and judgments of which documents answer which query."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.console import print_skipped
from utils.documents.reading import read_documents
from utils.records import Document, TrainingExample, read_json_records


class Collection(NamedTuple):
    """A test collection: documents, queries by id, and judgments; qrels[query id][document id] is the grade."""

    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def pool_examples(examples: Iterable[TrainingExample]) -> Collection:
    """Make a test collection of examples: all their documents, each once. Relevant to a query are its positives, and
    the positives of other examples that were made from the same passage."""
    ids: dict[str, str] = {}  # text -> id
    queries: dict[str, str] = {}  # text -> id
    qrels: dict[str, dict[str, int]] = {}
    passages: dict[str, dict[str, int]] = {}  # positive_id -> grade by id of each text made from it
    answers: list[tuple[str, dict[str, int]]] = []
    for example in examples:
        pooled = [text.strip() for text in (example.positive_document, *example.negatives)]
        for text in filter(None, pooled):
            ids.setdefault(text, f"d{len(ids)}")
        if example.query.strip() and pooled[0]:
            query = queries.setdefault(example.query.strip(), f"q{len(queries)}")
            own = passages.setdefault(example.positive_id or pooled[0], {})
            own[ids[pooled[0]]] = 1
            answers.append((query, own))
    for query, own in answers:
        qrels.setdefault(query, {}).update(own)
    documents = [Document(id=name, text=text) for text, name in ids.items()]
    return Collection(documents, {name: text for text, name in queries.items()}, qrels)


def read_collection(folder: str | Path, documents: str | Path | None = None) -> Collection:
    """Read a test collection in the BEIR layout: corpus.jsonl (or `documents`, any path that `read_documents` takes),
    queries.jsonl and qrels/test.tsv. Only queries with a judgment above 0 are kept. What was not read of a folder
    of documents is printed.

    Raises:
        ValueError: a file is broken, or nothing is judged.
        OSError: a file is missing.
    """
    folder = Path(folder)
    if documents is None and not (folder / "corpus.jsonl").is_file():
        raise FileNotFoundError(f"{folder}: has no corpus.jsonl; name the documents with --docs-file")
    queries: dict[str, str] = {}
    for place, value in read_json_records(folder / "queries.jsonl"):
        if not isinstance(value, dict) or "_id" not in value or not isinstance(value.get("text"), str):
            raise ValueError(f"{place}: a query needs the fields '_id' and 'text'")
        queries[str(value["_id"])] = value["text"]
    qrels = {query: grades for query, grades in _read_qrels(folder / "qrels" / "test.tsv").items() if query in queries}
    if not qrels:
        raise ValueError(f"{folder}: no query has a judgment above 0 in qrels/test.tsv")
    corpus, skipped = read_documents(folder if documents is None else documents)
    print_skipped(skipped)
    return Collection(corpus, {query: queries[query] for query in qrels}, qrels)


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read the grades of the queries that have one above 0."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if number == 1 and fields[-1].strip() == "score":
            continue
        try:
            query, document, grade = fields
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise ValueError(f"{path}: line {number}: expected query-id, corpus-id and score with tabs") from None
    return {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
