"""Training examples from user feedback: relevance judgments of search results."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from utils.records import Chunk, Record, TrainingExample, describe_error, read_json_records


class Feedback(Record):
    """One user's judgment of one search result: whether `document` answers `query`."""

    query: str
    document: str
    document_id: str | None = None
    liked: bool
    time: datetime.datetime | float | None = None
    model: str | None = None


def read_feedback_examples(path: str | Path, passages: Sequence[Chunk] = ()) -> tuple[list[TrainingExample], list[str]]:
    """Read recorded feedback, a JSON list or JSON Lines of `Feedback`.

    Of several judgments of a result the latest counts, or the last in the file where none has a time. An example's
    `positive_id` and `source` are those of the passage whose id is `document_id` or whose text is `document`.

    Args:
        passages: the collection's passages, to link examples to.

    Returns:
        One example per query and liked document, with the query's disliked documents as hard negatives; and one
        message per query without a liked document.

    Raises:
        ValueError: a malformed line, a missing or ill-typed field, an empty query or document, or no record.
        OSError: the file cannot be read.
    """
    judgments: dict[str, dict[str, tuple[float, Feedback]]] = {}  # query -> document -> (time, latest judgment)
    for location, value in read_json_records(Path(path)):
        try:
            record = Feedback.model_validate(value)
        except ValidationError as error:
            raise ValueError(f"{location}: {describe_error(error)}") from None
        query, document = " ".join(record.query.split()), record.document.strip()
        if not query or not document:
            raise ValueError(f"{location}: an empty {'document' if query else 'query'}")
        latest, timestamp = judgments.setdefault(query, {}), _timestamp(record.time)
        if document not in latest or timestamp >= latest[document][0]:
            latest[document] = (timestamp, record)
    if not judgments:
        raise ValueError(f"{path}: holds no feedback")
    by_id = {chunk.id: chunk for chunk in passages}
    by_text = {text: chunk for chunk in passages for text in (chunk.text, chunk.full_text)}
    document_ids = {chunk.document_id for chunk in passages}
    examples, skipped_queries = [], []
    for query, results in judgments.items():
        liked = {text: record for text, (_, record) in results.items() if record.liked}
        disliked = [text for text in results if text not in liked]
        if not liked:
            skipped_queries.append(f"'{query}' has {len(disliked)} disliked results and no liked one")
        for document, record in liked.items():
            chunk = by_id.get(record.document_id) or by_text.get(document)
            source = chunk.document_id if chunk else record.document_id
            positive_id = chunk.id if chunk else None if record.document_id in document_ids else record.document_id
            examples.append(
                TrainingExample(
                    query=query,
                    positive_document=document,
                    negative_documents=disliked,
                    positive_id=positive_id,
                    source=source or f"{Path(path).name}: {query}",
                    query_type="feedback",
                )
            )
    return examples, skipped_queries


def _timestamp(time: datetime.datetime | float | None) -> float:
    """Return seconds since 1970 in UTC, which a time without a zone is taken to be; minus infinity for no time."""
    if isinstance(time, datetime.datetime):
        return (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()
    return float("-inf") if time is None else time
