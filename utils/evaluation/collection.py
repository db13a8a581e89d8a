"""Test collections: documents, queries, and judgments of which documents answer which query."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.console import print_skipped
from utils.documents.reading import read_documents
from utils.records import Document, Passage, TrainingExample, read_json_records
from utils.search.lexical import BM25Index

NEAREST_DEPTH = 100  # BM25's ranks that `keep_nearest` looks at
QRELS_HEADERS = {"score", "relevance", "rel", "label", "grade"}  # names of the last column, on a first line of names


class Collection(NamedTuple):
    """A test collection: documents, queries by id, and judgments; qrels[query id][document id] is the grade."""

    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def pool_examples(examples: Iterable[TrainingExample], passages: Iterable[Passage] = ()) -> Collection:
    """Make a test collection of examples: the passages, if there are some, and all documents of the examples, each
    once. Relevant to a query are its positives, and the positives of other examples that were made from the same
    passage."""
    ids: dict[str, str] = {}  # text -> id
    for passage in passages:
        ids.setdefault(passage.passage.strip(), f"d{len(ids)}")
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


def keep_nearest(data: Collection, count: int, language: str | None = None) -> Collection:
    """Return the collection with its judged documents and, up to `count` in all, those that BM25 ranks highest for the
    queries: all first ranks, then all second ones, down to NEAREST_DEPTH. `language` is that of the texts."""
    if len(data.documents) <= count:
        return data
    kept = {document for grades in data.qrels.values() for document in grades}
    index = BM25Index([document.full_text for document in data.documents], language)
    hits = index.search(list(data.queries.values()), NEAREST_DEPTH)
    ranked = [[data.documents[position].id for position, _ in ranking] for ranking in hits]
    for document in itertools.chain.from_iterable(itertools.zip_longest(*ranked)):
        if document and len(kept) < count:
            kept.add(document)
    return data._replace(documents=[document for document in data.documents if document.id in kept])


def read_collection(folder: str | Path, documents: str | Path | None = None, split: str = "test") -> Collection:
    """Read a test collection in the BEIR layout: corpus.jsonl (or `documents`, any path that `read_documents` takes),
    queries.jsonl and the judgments qrels/SPLIT.tsv. Only queries with a judgment above 0 are kept. What was not read of
    a folder of documents is printed.

    Raises:
        ValueError: a file is broken, or nothing is judged.
        OSError: a file is missing.
    """
    folder = Path(folder)
    if documents is None and not (folder / "corpus.jsonl").is_file():
        raise FileNotFoundError(f"{folder}: has no corpus.jsonl; name the documents in `docs_file`")
    judgments = folder / "qrels" / f"{split}.tsv"
    if not judgments.is_file():
        others = ", ".join(sorted(file.stem for file in judgments.parent.glob("*.tsv")))
        raise FileNotFoundError(f"{judgments}: no such file" + (f"; the folder has the splits {others}" * bool(others)))
    queries: dict[str, str] = {}
    for place, value in read_json_records(folder / "queries.jsonl"):
        if not isinstance(value, dict) or "_id" not in value or not isinstance(value.get("text"), str):
            raise ValueError(f"{place}: a query needs the fields '_id' and 'text'")
        queries[str(value["_id"])] = value["text"]
    qrels = {query: grades for query, grades in _read_qrels(judgments).items() if query in queries}
    if not qrels:
        raise ValueError(f"{judgments}: no query of queries.jsonl has a judgment above 0")
    corpus, skipped = read_documents(folder if documents is None else documents)
    print_skipped(skipped)
    return Collection(corpus, {query: queries[query] for query in qrels}, qrels)


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read the grades of the queries that have one above 0. A line is a query's id, a document's id and a grade, with
    tabs and a header as in BEIR, or those with a column between the ids, as in TREC."""
    qrels: dict[str, dict[str, int]] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if not any(fields) or (number == 1 and fields[-1].lower() in QRELS_HEADERS):
            continue
        try:
            query, *iteration, document, grade = fields
            if len(iteration) > 1 or not float(grade).is_integer():
                raise ValueError
        except ValueError:
            raise ValueError(
                f"{path}: line {number}: expected query-id, corpus-id and a whole number, or TREC's four columns, "
                f"not '{line.strip()[:80]}'"
            ) from None
        qrels.setdefault(query, {})[document] = int(float(grade))
    return {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
