"""Training examples from user feedback: relevance judgments of search results."""

import datetime
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from utils.documents.normalization import text_key
from utils.records import Chunk, Record, TrainingExample, describe_error, read_json_records


class Feedback(Record):
    """One user's judgment of one search result: whether `document` answers `query`."""

    query: str
    document: str
    document_id: str | None = None
    liked: bool
    time: datetime.datetime | float | None = None
    model: str | None = None


def read_feedback_examples(path: str | Path, chunks: Sequence[Chunk] = ()) -> tuple[list[TrainingExample], list[str]]:
    """Read recorded feedback, a JSON list or JSON Lines of `Feedback`.

    Of several judgments of a result the latest counts, or the last in the file where none has a time. Texts that differ
    in spacing and case alone are one document. An example's `positive_id` and `source` are those of the chunk whose id
    is `document_id` or whose text is `document`. Where there is none, all examples of a document have one `source`: the
    first `document_id` that it is recorded with, or a name of its own.

    Args:
        chunks: the collection's chunks, to link examples to; of equal ones the first.

    Returns:
        One example per query and liked document, with the query's disliked documents as hard negatives; and one
        message per query without a liked document.

    Raises:
        ValueError: a malformed line, a missing or ill-typed field, an empty query or document, or no record.
        OSError: the file cannot be read.
    """
    judgments: dict[str, dict[str, tuple[float, Feedback]]] = {}  # query -> document's key -> (time, latest judgment)
    ids: dict[str, str | None] = {}  # document's key -> the first id that it is recorded with
    for location, value in read_json_records(Path(path)):
        try:
            record = Feedback.model_validate(value)
        except ValidationError as error:
            raise ValueError(f"{location}: {describe_error(error)}") from None
        query, document = " ".join(record.query.split()), record.document.strip()
        if not query or not document:
            raise ValueError(f"{location}: an empty {'document' if query else 'query'}")
        key, latest, timestamp = text_key(document), judgments.setdefault(query, {}), _timestamp(record.time)
        ids[key] = ids.get(key) or record.document_id
        if key not in latest or timestamp >= latest[key][0]:
            latest[key] = (timestamp, record)
    if not judgments:
        raise ValueError(f"{path}: holds no feedback")
    by_id = {chunk.id: chunk for chunk in chunks}
    by_text = {text_key(text): chunk for chunk in reversed(chunks) for text in (chunk.text, chunk.full_text)}
    document_ids = {chunk.document_id for chunk in chunks}
    names = {key: f"{Path(path).name}#{number}" for number, key in enumerate(ids, 1)}
    examples, skipped_queries = [], []
    for query, results in judgments.items():
        liked = {key: record for key, (_, record) in results.items() if record.liked}
        disliked = [record.document.strip() for key, (_, record) in results.items() if key not in liked]
        if not liked:
            skipped_queries.append(f"'{query}' has {len(disliked)} disliked results and no liked one")
        for key, record in liked.items():
            chunk = by_id.get(ids[key]) or by_text.get(key)
            examples.append(
                TrainingExample(
                    query=query,
                    positive_document=record.document.strip(),
                    negative_documents=disliked,
                    positive_id=chunk.id if chunk else None if ids[key] in document_ids else ids[key],
                    source=chunk.document_id if chunk else ids[key] or names[key],
                    query_type="feedback",
                )
            )
    return examples, skipped_queries


def check_feedback_file(path: str | Path) -> None:
    """Check that feedback can be added to a JSON Lines file: none is there, it is empty, or it begins with some.

    Raises:
        ValueError: it holds something else, such as documents.
        OSError: it cannot be read.
    """
    if Path(path).exists():
        with Path(path).open("rb") as lines:
            first = lines.readline()
        try:
            if first:
                Feedback.model_validate_json(first)
        except ValidationError:
            raise ValueError(
                f"{path}: holds no feedback, and judgments would be added to it; name another `feedback_file`"
            ) from None


def _timestamp(time: datetime.datetime | float | None) -> float:
    """Return seconds since 1970 in UTC, which a time without a zone is taken to be; minus infinity for no time."""
    if isinstance(time, datetime.datetime):
        return (time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)).timestamp()
    return float("-inf") if time is None else time
