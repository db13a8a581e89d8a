"""What people said about search results, as training examples."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from utils.records import Chunk, Record, TrainingExample, describe_error, read_json_records


class Feedback(Record):
    """Somebody's judgment of one result: whether `document` answers `query`."""

    query: str
    document: str
    document_id: str | None = None
    liked: bool
    time: datetime.datetime | float | None = None
    model: str | None = None


def read_feedback_examples(path: str | Path, passages: Sequence[Chunk] = ()) -> tuple[list[TrainingExample], list[str]]:
    """An example for each query and liked document, with the disliked ones of the query as hard negatives, and a line
    for each query that makes none.

    Of several judgments of a result the latest holds, or the last in the file where no time is given. An example knows
    the passage, or the document, whose id is `document_id`, or whose text is `document`.

    Raises:
        ValueError: a broken line, a missing or ill-typed field, or no record.
        OSError: the file cannot be read.
    """
    judged: dict[str, dict[str, tuple[float, Feedback]]] = {}  # query -> document -> (time, latest judgment)
    for place, value in read_json_records(Path(path)):
        try:
            record = Feedback.model_validate(value)
        except ValidationError as error:
            raise ValueError(f"{place}: {describe_error(error)}") from None
        query, document = " ".join(record.query.split()), record.document.strip()
        if not query or not document:
            raise ValueError(f"{place}: an empty {'document' if query else 'query'}")
        of_query, moment = judged.setdefault(query, {}), _seconds(record.time)
        if document not in of_query or moment >= of_query[document][0]:
            of_query[document] = (moment, record)
    if not judged:
        raise ValueError(f"{path}: holds no feedback")
    by_id = {chunk.id: chunk for chunk in passages}
    by_text = {text: chunk for chunk in passages for text in (chunk.text, chunk.full_text)}
    documents = {chunk.document_id for chunk in passages}
    examples, skipped_queries = [], []
    for query, results in judged.items():
        liked = {text: record for text, (_, record) in results.items() if record.liked}
        disliked = [text for text in results if text not in liked]
        if not liked:
            skipped_queries.append(f"'{query}' has {len(disliked)} disliked results and no liked one")
        for document, record in liked.items():
            chunk = by_id.get(record.document_id) or by_text.get(document)
            source = chunk.document_id if chunk else record.document_id
            examples.append(
                TrainingExample(
                    query=query,
                    positive_document=document,
                    negative_documents=disliked,
                    positive_id=chunk.id if chunk else None if record.document_id in documents else record.document_id,
                    source=source or f"{Path(path).name}: {query}",
                    query_type="feedback",
                )
            )
    return examples, skipped_queries


def _seconds(time: datetime.datetime | float | None) -> float:
    """Since 1970; a time without a zone is UTC, and no time the earliest."""
    if isinstance(time, datetime.datetime):
        return (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()
    return float("-inf") if time is None else time
