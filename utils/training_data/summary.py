"""What a run made and left out, in lines for the terminal and cases for the report."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from utils.documents.duplicates import NearDuplicateIndex
from utils.records import Chunk, Document, TrainingExample
from utils.training_data.quality import Rejected


def summarize(
    documents: Sequence[Document],
    skipped: Sequence[str],
    chunks: Sequence[Chunk],
    near_duplicates: NearDuplicateIndex,
    parts: dict[str, list[TrainingExample]],
    rejected: Sequence[Rejected],
) -> dict[str, str]:
    """Return what was read, made and left out, a line each by name."""
    examples = [example for part in parts.values() for example in part]
    empty, copies = len(documents) - len({chunk.document_id for chunk in chunks}), len(near_duplicates.duplicate_of)
    return {
        "documents": f"{len(documents):,} ({empty:,} empty), {len(skipped):,} files skipped",
        "passages": f"{len(chunks) - copies:,}; {copies:,} more are copies of one of them",
        "examples": f"{len(examples):,}: {_tally(example.query_type for example in examples)}",
        "queries": _length_summary(example.query for example in examples),
        "positives": _length_summary(example.positive_document for example in examples),
        "left out": f"{len(rejected):,}: {_tally(case.reason for case in rejected)}",
    }


def rejected_copies(chunks: Sequence[Chunk], near_duplicates: NearDuplicateIndex) -> list[Rejected]:
    """Return the chunks that repeat an earlier one, for the report."""
    copies = near_duplicates.duplicate_of
    return [
        Rejected("copied passage", chunk.text, f"{chunk.id} repeats {copies[chunk.id]}")
        for chunk in chunks
        if chunk.id in copies
    ]


def _tally(reasons: Iterable[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common()) or "none"


def _length_summary(texts: Iterable[str]) -> str:
    low, median, high = np.percentile([len(text.split()) for text in texts], (10, 50, 90))
    return f"median {median:,.0f} words (p10 {low:,.0f}, p90 {high:,.0f})"
