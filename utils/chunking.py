"""Split documents into passages of a size that a model can read and a person would cite."""

import re
from collections.abc import Iterable

import semchunk

from utils.formats import split_code
from utils.records import Chunk, Document

MIN_SIZE, MAX_SIZE = 500, 2000  # characters
MIN_OVERLAP, MAX_OVERLAP = 0.1, 0.2  # share of a chunk


def chunk_documents(documents: Iterable[Document], size: int = MAX_SIZE, overlap: float = 0.15) -> list[Chunk]:
    """Passages of at most `size` characters, cut at headings; a section that is longer is cut at the largest border
    that fits (paragraph, sentence, word), and its parts share `overlap` with their neighbours. Sections shorter than
    500 characters stay with what follows. A passage within fenced code is fenced itself. An empty document has none.

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
        before = len(chunks)
        fences = _fences(document.text)
        for start, end, headings in _sections(document.text, size):
            spans = [(0, end - start)]
            if end - start > size:
                spans = _join_short_end(split(document.text[start:end], offsets=True, overlap=overlap)[1], size)
            for first, last in spans:
                text = document.text[start + first : start + last].strip()
                if any(a < start + first < b for a, b in fences):
                    text = f"```\n{text}"
                if any(a < start + last < b for a, b in fences):
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
        if sections and (last - before < MIN_SIZE or end - start < MIN_SIZE // 4) and end - before <= size:
            sections[-1] = (before, end, sections[-1][2] or [name for _, name in path])
        elif text[start:end].strip():
            sections.append((start, end, [name for _, name in path]))
    return sections


def _join_short_end(spans: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """The spans with a short last one widened backwards to the smallest size worth having."""
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] < MIN_SIZE <= size:
        start = max(spans[-2][0], spans[-1][1] - MIN_SIZE)
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
