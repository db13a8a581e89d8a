"""What a run made and left out, in lines for the terminal and cases for the report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.documents.families import Families
from utils.documents.normalization import count_words
from utils.records import Chunk, Document, TrainingExample
from utils.training_data.negatives_mined import rank_window
from utils.training_data.quality import Rejected


def summarize(
    documents: Sequence[Document],
    chunks: Sequence[Chunk],
    families: Families,
    parts: Mapping[str, Sequence[TrainingExample]],
    files: Mapping[str, Path],
    rejected: Sequence[Rejected],
) -> dict[str, str]:
    """Return what was read, made and left out, and which file each part is in, a line each by name."""
    examples = [example for part in parts.values() for example in part]
    empty = len(documents) - len({chunk.document_id for chunk in chunks})
    written = {
        name: f"{len(parts[name]):,} -> {path}" if parts[name] else "none: too few documents, or no queries that fit"
        for name, path in files.items()
    }
    copies, boilerplate = len(families.copy_of), len(families.boilerplate)
    return {
        "documents": f"{len(documents):,} ({empty:,} empty)",
        "passages": f"{len(families.passages):,}; {copies:,} more are copies of one of them, "
        f"{boilerplate:,} boilerplate",
        "examples": f"{len(examples):,}: {_tally(example.query_type for example in examples)}",
        "queries": _length_summary(example.query for example in examples),
        "positives": _length_summary(example.positive_document for example in examples),
        "left out": f"{len(rejected):,}: {_tally(case.reason for case in rejected)}",
        **written,
    }


def describe_negatives(
    count: int, examples: Sequence[TrainingExample], passages: Sequence[Chunk], families: Families
) -> str:
    """Return how many negatives were mined for the examples among the passages, and if none why."""
    mined = f"{count:,} mined for {len(examples):,} training examples"
    unrelated = len({families.family_of.get(source, source) for source in {example.source for example in examples}})
    window = rank_window(len(passages))
    if count:
        return mined
    if window.start >= window.stop or unrelated < 2:
        return f"{mined}: {len(passages):,} passages of {unrelated:,} unrelated documents are too few"
    found = f"BM25 finds {window.start} unrelated passages at most for a query"
    return f"{mined}: {found}, and the first {window.start} are left out as likely answers"


def rejected_chunks(chunks: Sequence[Chunk], families: Families) -> list[Rejected]:
    """Return the chunks that repeat an earlier one or are boilerplate, for the report."""
    rejected = []
    for chunk in chunks:
        if chunk.id in families.copy_of:
            detail = f"{chunk.id} repeats {families.copy_of[chunk.id]}"
            rejected.append(Rejected("copied passage", chunk.text, detail))
        elif chunk.id in families.boilerplate:
            detail = f"{chunk.id} is shared by {families.boilerplate[chunk.id]:,} documents"
            rejected.append(Rejected("boilerplate passage", chunk.text, detail))
    return rejected


def _tally(reasons: Iterable[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common()) or "none"


def _length_summary(texts: Iterable[str]) -> str:
    low, median, high = np.percentile([count_words(text) for text in texts], (10, 50, 90))
    return f"median {median:,.0f} words (p10 {low:,.0f}, p90 {high:,.0f})"
