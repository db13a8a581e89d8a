"""Test collections: documents, queries, and judgments of which documents answer which query."""

import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from utils.records import Document, Passage, TrainingExample
from utils.search.lexical import BM25Index

NEAREST_DEPTH = 100  # BM25's ranks that `keep_nearest` looks at


class Collection(NamedTuple):
    """A test collection.

    Attributes:
        documents: what is searched.
        queries: texts by id, those that are judged.
        qrels: qrels[query id][document id] is the grade; relevant is what is above 0.
        fields: what else is known of a query by its id, values by name, such as its query_type.
    """

    documents: list[Document]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    fields: Mapping[str, Mapping[str, str]] = {}

    def own_documents(self) -> dict[str, str]:
        """Return the queries that are documents of the collection, with the id of both: a document of the same id,
        whose text or title the query is. A query does not ask for itself, so it is left out of what is found, as BEIR
        does (Thakur et al., arXiv 2104.08663, on ArguAna), unless it is judged relevant."""
        own = {}
        for document in self.documents:
            text = self.queries.get(document.id)
            same = text is not None and text.strip() in (
                document.text.strip(),
                document.title.strip(),
                document.full_text,
            )
            if same and self.qrels.get(document.id, {}).get(document.id, 0) <= 0:
                own[document.id] = document.id
        return own


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
    fields: dict[str, dict[str, str]] = {}
    for example in examples:
        pooled = [text.strip() for text in (example.positive_document, *example.negatives)]
        for text in filter(None, pooled):
            ids.setdefault(text, f"d{len(ids)}")
        if example.query.strip() and pooled[0]:
            query = queries.setdefault(example.query.strip(), f"q{len(queries)}")
            own = passages.setdefault(example.positive_id or pooled[0], {})
            own[ids[pooled[0]]] = 1
            answers.append((query, own))
            kind = {"query_type": example.query_type} if example.query_type else {}
            fields.setdefault(query, {**kind, **plain_fields((example.model_extra or {}).get("metadata"))})
    for query, own in answers:
        qrels.setdefault(query, {}).update(own)
    documents = [Document(id=name, text=text) for text, name in ids.items()]
    return Collection(documents, {name: text for text, name in queries.items()}, qrels, fields)


def plain_fields(values: object) -> dict[str, str]:
    """Return the values of a JSON object that are texts, numbers, true or false, as texts."""
    items = values.items() if isinstance(values, dict) else ()
    return {name: str(value) for name, value in items if isinstance(value, str | int | float)}


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
