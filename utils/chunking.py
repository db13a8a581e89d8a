"""Split documents into passages of a size that a model can read and a person would cite."""

import re
from collections.abc import Iterable

import semchunk

from utils.records import Chunk, Document

MIN_SIZE, MAX_SIZE = 500, 2000  # characters
MIN_OVERLAP, MAX_OVERLAP = 0.1, 0.2  # share of a chunk


def chunk_documents(documents: Iterable[Document], size: int = MAX_SIZE, overlap: float = 0.15) -> list[Chunk]:
    """Passages of at most `size` characters that share `overlap` of it with their neighbour, cut at the largest
    border that fits: section, paragraph, sentence, word. A short document is one passage; an empty one has none.

    Raises:
        ValueError: size outside 500 to 2,000 characters, or overlap outside 0.1 to 0.2.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"chunk size must be from {MIN_SIZE} to {MAX_SIZE} characters, not {size}")
    if not MIN_OVERLAP <= overlap <= MAX_OVERLAP:
        raise ValueError(f"chunk overlap must be from {MIN_OVERLAP} to {MAX_OVERLAP}, not {overlap}")
    split = semchunk.chunkerify(len, chunk_size=size, memoize=False)
    chunks = []
    for document in documents:
        if not document.text.strip():
            continue
        if len(document.text) <= size:
            spans = [(0, len(document.text))]
        else:
            spans = _join_short_end(split(document.text, offsets=True, overlap=overlap)[1], size)
        headings = _headings(document.text)
        for number, (start, end) in enumerate(spans):
            text = document.text[start:end].strip()
            # A passage that overlaps the end of the section before belongs to the heading that soon follows.
            limit = start + (len(text) // 4 if number else 0)
            above = [heading for position, heading in headings if position <= limit]
            if text:
                chunks.append(
                    Chunk(
                        id=f"{document.id}#{number}",
                        document_id=document.id,
                        title=document.title,
                        heading=above[-1] if above else "",
                        text=text,
                    )
                )
    return chunks


def _join_short_end(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """The spans with a short last one widened backwards to the smallest size worth having."""
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] < MIN_SIZE <= size:
        start = max(spans[-2][0], spans[-1][1] - MIN_SIZE)
        spans = [*spans[:-1], (start, spans[-1][1])]
    return spans


def _headings(text: str) -> list[tuple[int, str]]:
    """(position, heading) of each Markdown heading outside code fences."""
    found, position, fenced = [], 0, False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = None if fenced else re.match(r"#{1,6}\s+(\S.*)", line)
        if heading:
            found.append((position, heading[1].strip(" #\n")))
        position += len(line)
    return found
