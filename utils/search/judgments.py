"""Judgments of hits, recorded as they are made."""

import datetime
import json
from pathlib import Path
from typing import Any

from utils.files import append_line
from utils.search.legs import Key
from utils.search.searcher import DocumentSearch


def record_judgment(
    file: str | Path, search: DocumentSearch, query: str, passage: Key, liked: bool, **further: str
) -> dict[str, Any]:
    """Append whether a passage answers a query to a file, as `utils.training_data.feedback` reads it; return the line.

    Args:
        search: what found the passage.
        further: fields that are kept beside.

    Raises:
        ValueError: the index has no such passage, or has it no more.
        OSError: the file cannot be written.
    """
    text = search.index.passage(passage).text
    document = search.index.document_of(passage)
    line = {
        "query": query,
        "document": text,
        "document_id": search.index.documents([document])[document].id,
        "liked": liked,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": search.model.name,
        "model_fingerprint": search.model.fingerprint,
        **further,
    }
    append_line(file, json.dumps(line, ensure_ascii=False))
    return line
