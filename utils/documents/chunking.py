"""Split documents into passages of a size that a model can read and a person would cite."""

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import semchunk

from utils.documents.formats import Piece, split_code, split_prose
from utils.records import Chunk, Document

MIN_CHUNK_SIZE, MAX_CHUNK_SIZE = 500, 2000  # characters
MIN_OVERLAP, MAX_OVERLAP = 0.1, 0.2  # share of a chunk
WINDOW_SENTENCES = 3  # sentences on each side of a border
BATCH_SENTENCES = 4096  # that are encoded at a time


def chunk_documents(
    documents: Iterable[Document],
    size: int = MAX_CHUNK_SIZE,
    overlap: float = 0.15,
    encode: Callable[[Sequence[str]], Any] | None = None,
) -> list[Chunk]:
    """Passages of at most `size` characters, cut at headings; a section that is longer is cut at the largest border
    that fits (paragraph, sentence, word), and its parts share `overlap` with their neighbors. Sections shorter than
    500 characters stay with what follows. A passage within fenced code is fenced itself. An empty document has none.

    With `encode`, which makes of texts their vectors of length 1, sections are cut where the topic shifts instead:
    between the sentences whose neighborhoods are least alike (TextTiling; Hearst, Computational Linguistics 1997),
    until each part fits and none holds a shift that stands out, and the parts share nothing.

    Raises:
        ValueError: size outside 500 to 2,000 characters, or overlap outside 0.1 to 0.2.
    """
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE:
        raise ValueError(f"chunk size must be from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE} characters, not {size}")
    if not MIN_OVERLAP <= overlap <= MAX_OVERLAP:
        raise ValueError(f"chunk overlap must be from {MIN_OVERLAP} to {MAX_OVERLAP}, not {overlap}")
    split = semchunk.chunkerify(len, chunk_size=size, memoize=False)
    chunks = []
    for document, borders in _topic_shifts(documents, encode) if encode else ((d, []) for d in documents):
        before = len(chunks)
        fences = _fences(document.text)
        for start, end, headings in _sections(document.text, size):
            spans = []
            for first, last in _cut_at_shifts(start, end, borders, size):
                if last - first > size:
                    parts = split(document.text[first:last], offsets=True, overlap=overlap)[1]
                    spans += [(first + a, first + b) for a, b in _join_short_end(parts, size)]
                else:
                    spans.append((first, last))
            for first, last in spans:
                text = document.text[first:last].strip()
                if any(a < first < b for a, b in fences):
                    text = f"```\n{text}"
                if any(a < last < b for a, b in fences):
                    text = f"{text}\n```"
                if text:
                    chunks.append(
                        Chunk(
                            id=f"{document.id}#{len(chunks) - before}",
                            document_id=document.id,
                            title=document.title,
                            headings=headings,
                            text=text,
                        )
                    )
    return chunks


def _sections(text: str, size: int) -> list[tuple[int, int, list[str]]]:
    """(start, end, path of headings from the outermost on) of each section, one that is short together with what
    follows it. A long one has to be cut yet."""
    sections: list[tuple[int, int, list[str]]] = []
    path: list[tuple[int, str]] = []  # (level, heading)
    borders = [(0, 0, ""), *_headings(text)]
    ends = [position for position, _, _ in borders[1:]] + [len(text)]
    for (start, level, heading), end in zip(borders, ends):
        if heading:
            path = [(above, name) for above, name in path if above < level] + [(level, heading)]
        before, last = sections[-1][:2] if sections else (0, 0)
        if sections and (last - before < MIN_CHUNK_SIZE or end - start < MIN_CHUNK_SIZE // 4) and end - before <= size:
            sections[-1] = (before, end, sections[-1][2] or [name for _, name in path])
        elif text[start:end].strip():
            sections.append((start, end, [name for _, name in path]))
    return sections


def _topic_shifts(
    documents: Iterable[Document], encode: Callable[[Sequence[str]], Any]
) -> Iterator[tuple[Document, list[tuple[int, float]]]]:
    """Each document with its borders between sentences and how much the topic shifts there: the cosine distance of the
    WINDOW sentences before from those after, less what stands out (the document's mean and one standard deviation)."""
    waiting: list[tuple[Document, list[Piece]]] = []
    for document in itertools.chain(documents, [None]):
        if document is not None:
            waiting.append((document, split_prose(document.text)))
        if document is not None and sum(len(pieces) for _, pieces in waiting) < BATCH_SENTENCES:
            continue
        found = encode([d.text[piece.start : piece.end] for d, pieces in waiting for piece in pieces])
        start = 0
        for done, pieces in waiting:
            shifts = _shifts(found[start : start + len(pieces)])
            yield done, [(piece.start, shift) for piece, shift in zip(pieces[1:], shifts)]
            start += len(pieces)
        waiting = []


def _shifts(vectors: Any) -> list[float]:
    """[sentences - 1] of [sentences, dimensions], dense or sparse."""
    count = vectors.shape[0]
    if count < 2:
        return []
    before, after = (
        scipy.sparse.diags_array([np.ones(count)] * len(offsets), offsets=offsets, shape=(count, count)) @ vectors
        for offsets in (range(0, -min(WINDOW_SENTENCES, count), -1), range(1, min(WINDOW_SENTENCES + 1, count)))
    )
    products = [
        np.asarray((a.multiply(b) if scipy.sparse.issparse(a) else a * b).sum(axis=1)).ravel()[:-1]
        for a, b in ((before, after), (before, before), (after, after))
    ]
    shifts = 1 - products[0] / np.sqrt(np.maximum(products[1] * products[2], 1e-12))
    return (shifts - shifts.mean() - shifts.std()).tolist()


def _cut_at_shifts(start: int, end: int, borders: list[tuple[int, float]], size: int) -> list[tuple[int, int]]:
    """(start, end) of the parts of a section, none below MIN_SIZE; one without a border may be longer than `size`."""
    spans, waiting = [], [(start, end)]
    while waiting:
        first, last = waiting.pop()
        low = bisect.bisect_left(borders, first + MIN_CHUNK_SIZE, key=lambda border: border[0])
        high = bisect.bisect_right(borders, last - MIN_CHUNK_SIZE, key=lambda border: border[0])
        position, shift = max(borders[low:high], key=lambda border: border[1], default=(first, 0.0))
        if position > first and (shift > 0 or last - first > size):
            waiting += [(position, last), (first, position)]
        else:
            spans.append((first, last))
    return spans


def _join_short_end(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """The spans with a short last one widened backwards to the smallest size worth having."""
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] < MIN_CHUNK_SIZE <= size:
        start = max(spans[-2][0], spans[-1][1] - MIN_CHUNK_SIZE)
        spans = [*spans[:-1], (start, spans[-1][1])]
    return spans


def _headings(text: str) -> list[tuple[int, int, str]]:
    """(position, level, heading) of each Markdown heading outside code fences."""
    found, position = [], 0
    for code, part in split_code(text):
        if not code:
            marks = re.finditer(r"^(#{1,6})[ \t]+(\S.*)$", part, re.MULTILINE)
            found += [(position + mark.start(), len(mark[1]), mark[2].strip(" #")) for mark in marks]
        position += len(part)
    return found


def _fences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each run of fenced code."""
    found, position = [], 0
    for code, part in split_code(text):
        if code:
            found.append((position, position + len(part)))
        position += len(part)
    return found
