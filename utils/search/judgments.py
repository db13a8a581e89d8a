"""Judgments of hits, recorded as they are made."""

import datetime
import json
from pathlib import Path
from typing import Any

from utils.files import append_line
from utils.search.searcher import DocumentSearch
from utils.search.store import document_of


def record_judgment(
    file: str | Path, search: DocumentSearch, query: str, passage: int, liked: bool, **further: str
) -> dict[str, Any]:
    """Append whether a passage answers a query to a file, as `utils.training_data.feedback` reads it; return the line.

    Args:
        search: what found the passage.
        further: fields that are kept beside.

    Raises:
        ValueError: the index has no such passage.
        OSError: the file cannot be written.
    """
    found = search.index.passages([passage]).get(passage)
    if not found:
        raise ValueError(f"there is no passage {passage}")
    number = document_of(passage)
    line = {
        "query": query,
        "document": found.text,
        "document_id": search.index.documents([number])[number].id,
        "liked": liked,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": search.model.name,
        **further,
    }
    append_line(file, json.dumps(line, ensure_ascii=False))
    return line
