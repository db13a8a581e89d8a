"""Split Markdown text into code blocks, sentences, list items, headings and table rows."""

import re
from typing import NamedTuple

CODE_FENCE = re.compile(r"\s*(```|~~~)")
# Prose is split after a sentence, at an empty line, and before a heading, list item or table row.
PROSE_BOUNDARY = re.compile(r"(?<=[.!?])\s+|\n{2,}|\n(?=[ \t]*(?:[-*+#|]|\d+[.)])[ \t])")
HEADING_OR_ROW = re.compile(r"\s*(?:#{1,6}\s|\|)")


class Piece(NamedTuple):
    """Span of characters [start, end) of a text; `prose` is False for a heading, a table row or code."""

    start: int
    end: int
    prose: bool


def split_code(text: str) -> list[tuple[bool, str]]:
    """Split a text into runs of lines, (is fenced code, run); the runs, joined, are the text."""
    runs: list[tuple[bool, list[str]]] = []
    open_fence = ""
    for line in text.splitlines(keepends=True):
        fence = CODE_FENCE.match(line)
        code = bool(open_fence or fence)
        if not runs or runs[-1][0] != code:
            runs.append((code, []))
        runs[-1][1].append(line)
        if fence and (not open_fence or fence[1] == open_fence):
            open_fence = "" if open_fence else fence[1]
    return [(code, "".join(lines)) for code, lines in runs]


def split_prose(text: str) -> list[Piece]:
    """Split a text into sentences, list items, headings, table rows and runs of fenced code."""
    pieces, position = [], 0
    for code, run in split_code(text):
        boundaries = [] if code else [boundary.span() for boundary in PROSE_BOUNDARY.finditer(run)]
        starts = [0, *(end for _, end in boundaries)]
        for start, end in zip(starts, [*(start for start, _ in boundaries), len(run)]):
            piece = run[start:end]
            if piece.strip():
                prose = not code and not HEADING_OR_ROW.match(piece)
                pieces.append(Piece(position + start, position + end, prose))
        position += len(run)
    return pieces
