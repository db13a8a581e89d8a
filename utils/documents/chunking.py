"""Split documents into passages of a size that a model can read and a person would cite."""

import bisect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import semchunk

from utils.documents.segments import CodeBlock, Piece, code_blocks, split_prose
from utils.records import Chunk, Document

MIN_CHUNK_SIZE, MAX_CHUNK_SIZE = 500, 2000  # characters; bounds of `size`; a shorter section is merged
MIN_OVERLAP, MAX_OVERLAP = 0.1, 0.2  # share of a chunk; bounds of `overlap`, which keeps context but repeats text
# semchunk cuts at spaces before full stops, and knows no Chinese or Japanese one. Where there is one in so many
# characters, it is shown these alone.
MAX_SENTENCE = 200  # characters
FULL_STOPS = str.maketrans({"。": ".", ".": "_", " ": "_"})
# It is shown a heading, or a line that ends in a colon, and what it leads to as one word.
LEADING_LINE = re.compile(r"(^#{1,6}[ \t].*|:)(\s*\n\s*)(?=\S)", re.MULTILINE)
WINDOW_SENTENCES = 3  # sentences on each side of a boundary that are compared; more smooth the similarity
BATCH_SENTENCES = 4096  # sentences that are encoded at a time; bounds the memory for vectors


def chunk_documents(
    documents: Iterable[Document],
    size: int = MAX_CHUNK_SIZE,
    overlap: float = 0.15,
    encode: Callable[[Sequence[str]], Any] | None = None,
) -> list[Chunk]:
    """Split documents into passages of at most `size` characters, cut at headings. A longer section is cut at the
    largest boundary that fits (paragraph, sentence, word), and neighboring parts of it share `overlap`, a share of a
    part. A section shorter than 500 characters is merged with what follows. A passage from within fenced code is fenced
    itself. An empty document has no passages.

    With `encode`, which returns vectors of length 1 for texts ([texts, dimensions], dense or sparse), sections are cut
    where the topic shifts instead: between the sentences whose neighborhoods are least similar (TextTiling; Hearst,
    Computational Linguistics 1997), until each part fits and none has a shift more than one standard deviation above
    its document's mean. These parts do not overlap.

    Raises:
        ValueError: size outside 500 to 2,000 characters, or overlap outside 0.1 to 0.2.
    """
    if not MIN_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE:
        raise ValueError(f"chunk size must be from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE} characters, not {size}")
    if not MIN_OVERLAP <= overlap <= MAX_OVERLAP:
        raise ValueError(f"chunk overlap must be from {MIN_OVERLAP} to {MAX_OVERLAP}, not {overlap}")
    chunks = []
    for document, boundaries in _topic_shifts(documents, encode) if encode else ((d, []) for d in documents):
        earlier_chunks = len(chunks)
        blocks = code_blocks(document.text)
        for section_start, section_end, headings in _sections(document.text, blocks, size):
            spans = []
            for start, end in _split_at_shifts(section_start, section_end, boundaries, size):
                if end - start > size:
                    fences = max((2 * len(f"{b.fence}\n") for b in _overlapping(blocks, start, end)), default=0)
                    parts = split_text(document.text[start:end], size - fences, overlap)
                    spans += [(start + a, start + b) for a, b in _widen_short_last_span(parts, size - fences)]
                else:
                    spans.append((start, end))
            for start, end in spans:
                text = document.text[start:end].strip()
                for block in _overlapping(blocks, start, start):
                    text = f"{block.fence}\n{text}"
                for block in _overlapping(blocks, end, end):
                    text = f"{text}\n{block.fence}"
                if text:
                    chunks.append(
                        Chunk(
                            id=f"{document.id}#{len(chunks) - earlier_chunks}",
                            document_id=document.id,
                            title=document.title,
                            headings=headings,
                            text=text,
                            metadata=document.metadata,
                        )
                    )
    return chunks


def split_text(text: str, size: int, overlap: float | None = None) -> list[tuple[int, int]]:
    """Split a text at the largest boundaries that fit (paragraph, sentence, word) into parts (start, end) of at most
    `size` characters, which hold all but whitespace; neighboring ones share `overlap`, a share of a part. Only the last
    may end with a heading, or with a line that ends in a colon."""
    text = LEADING_LINE.sub(lambda match: match[1] + "_" * len(match[2]), text)
    if text.count("。") * MAX_SENTENCE > len(text):
        text = text.translate(FULL_STOPS)
    return semchunk.chunk(text, size, len, memoize=False, offsets=True, overlap=overlap)[1]


def _overlapping(blocks: list[CodeBlock], start: int, end: int) -> list[CodeBlock]:
    """Return the blocks, of those in order, that begin before `end` and end after `start`."""
    first = bisect.bisect_right(blocks, start, key=lambda block: block.end)
    return blocks[first : bisect.bisect_left(blocks, end, key=lambda block: block.start)]


def _sections(text: str, blocks: list[CodeBlock], size: int) -> list[tuple[int, int, list[str]]]:
    """Split a text at its headings, other than in its blocks of code, into sections (start, end, path of headings from
    the outermost on). A heading without text of its own belongs to the next section. A short section is merged with the
    next one; one longer than `size` is not cut here."""
    sections: list[tuple[int, int, list[str]]] = []
    path: list[tuple[int, str]] = []  # (level, heading)
    headings = [(0, 0, ""), *find_headings(text, blocks)]
    ends = [position for position, _, _ in headings[1:]] + [len(text)]
    start = 0
    for (position, level, heading), end in zip(headings, ends):
        if heading:
            path = [(above, name) for above, name in path if above < level] + [(level, heading)]
        if heading and end < len(text) and "\n" not in text[position:end].strip():
            continue
        last_start, last_end = sections[-1][:2] if sections else (0, 0)
        short = last_end - last_start < MIN_CHUNK_SIZE or end - start < MIN_CHUNK_SIZE // 4
        if sections and short and end - last_start <= size:
            sections[-1] = (last_start, end, sections[-1][2] or [name for _, name in path])
        elif text[start:end].strip():
            sections.append((start, end, [name for _, name in path]))
        start = end
    return sections


def _topic_shifts(
    documents: Iterable[Document], encode: Callable[[Sequence[str]], Any]
) -> Iterator[tuple[Document, list[tuple[int, float]]]]:
    """Yield each document with its boundaries between sentences, (position, topic shift). Sentences of several
    documents are encoded together."""
    pending: list[tuple[Document, list[Piece]]] = []
    for document in itertools.chain(documents, [None]):
        if document is not None:
            pending.append((document, split_prose(document.text)))
        if document is not None and sum(len(pieces) for _, pieces in pending) < BATCH_SENTENCES:
            continue
        vectors = encode([d.text[piece.start : piece.end] for d, pieces in pending for piece in pieces])
        first = 0
        for encoded, pieces in pending:
            shifts = _shifts(vectors[first : first + len(pieces)])
            yield encoded, [(piece.start, shift) for piece, shift in zip(pieces[1:], shifts)]
            first += len(pieces)
        pending = []


def _shifts(vectors: Any) -> list[float]:
    """Return the topic shift after each sentence but the last, [sentences - 1], from [sentences, dimensions], dense or
    sparse: the cosine distance between the WINDOW_SENTENCES before and those after, less the mean and one standard
    deviation of these distances, so that a positive shift stands out."""
    count = vectors.shape[0]
    if count < 2:
        return []
    before, after = (  # sums over the windows, [sentences, dimensions]
        scipy.sparse.diags_array([np.ones(count)] * len(offsets), offsets=offsets, shape=(count, count)) @ vectors
        for offsets in (range(0, -min(WINDOW_SENTENCES, count), -1), range(1, min(WINDOW_SENTENCES + 1, count)))
    )
    dot, before_squared, after_squared = (
        np.asarray((a.multiply(b) if scipy.sparse.issparse(a) else a * b).sum(axis=1)).ravel()[:-1]
        for a, b in ((before, after), (before, before), (after, after))
    )
    shifts = 1 - dot / np.sqrt(np.maximum(before_squared * after_squared, 1e-12))
    return (shifts - shifts.mean() - shifts.std()).tolist()


def _split_at_shifts(start: int, end: int, boundaries: list[tuple[int, float]], size: int) -> list[tuple[int, int]]:
    """Split a section at its largest topic shifts into parts (start, end). No part is cut below MIN_CHUNK_SIZE; one
    without a boundary may be longer than `size`."""
    spans, pending = [], [(start, end)]
    while pending:
        start, end = pending.pop()
        low = bisect.bisect_left(boundaries, start + MIN_CHUNK_SIZE, key=lambda boundary: boundary[0])
        high = bisect.bisect_right(boundaries, end - MIN_CHUNK_SIZE, key=lambda boundary: boundary[0])
        position, shift = max(boundaries[low:high], key=lambda boundary: boundary[1], default=(start, 0.0))
        if position > start and (shift > 0 or end - start > size):
            pending += [(position, end), (start, position)]
        else:
            spans.append((start, end))
    return spans


def _widen_short_last_span(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the spans, the last one widened backward to MIN_CHUNK_SIZE, or to `size`, if it is shorter."""
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] < MIN_CHUNK_SIZE:
        start = max(spans[-2][0], spans[-1][1] - min(MIN_CHUNK_SIZE, size))
        spans = [*spans[:-1], (start, spans[-1][1])]
    return spans


def find_headings(text: str, blocks: list[CodeBlock]) -> list[tuple[int, int, str]]:
    """Return (position, level, heading) of each Markdown heading outside the blocks of code."""
    return [
        (match.start(), len(match[1]), match[2].strip(" #"))
        for match in re.finditer(r"^(#{1,6})[ \t]+(\S.*)$", text, re.MULTILINE)
        if not _overlapping(blocks, match.start(), match.end())
    ]
