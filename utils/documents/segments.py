"""Split Markdown text into code blocks, sentences, list items, headings and table rows."""

import re
from typing import NamedTuple

from markdown_it import MarkdownIt

from utils.documents.normalization import UNSPACED

MAX_FENCE = 10  # characters; a longer fence is as good as one of this length to mark a part of its block as code
# Blocks of a Markdown file, by CommonMark to the letter; and of any text, such as a passage cut out of a list: there
# indentation makes no code, nor does it unmake a fence, and what looks like HTML is text.
_STRICT = MarkdownIt("commonmark")
_LENIENT = MarkdownIt("commonmark", {"html": False}).disable("code")
# Prose is split after a sentence, at an empty line, and before a heading, list item or table row; in Chinese and
# Japanese after a sentence without a space and its closing brackets, in Thai and Lao at each space.
PROSE_BOUNDARY = re.compile(r"(?<=[.!?।॥؟\u06d4።။])\s+|\n{2,}|\n(?=[ \t]*(?:[-*+#|]|\d+[.)])[ \t])")
_CLOSING = "[」』】〉》”)\\]]"
UNSPACED_BOUNDARY = re.compile(
    rf"(?:(?<=。)|(?<=。{_CLOSING})|(?<=。{_CLOSING}{{2}}))(?!。|{_CLOSING})\s*"
    rf"|(?:(?<=[!?])|(?<=[!?]{_CLOSING}))(?!{_CLOSING})(?=“?[\u3000-\U0003ffff])"
    rf"|(?<=[\u0e00-\u0eff])[ \t]+(?=[\u0e00-\u0eff])|{PROSE_BOUNDARY.pattern}"
)
HEADING_OR_ROW = re.compile(r"\s*(?:#{1,6}\s|\|)")


class Piece(NamedTuple):
    """Span of characters [start, end) of a text; `prose` is False for a heading, a table row or code."""

    start: int
    end: int
    prose: bool


class CodeBlock(NamedTuple):
    """Lines of code [start, end) of a text, in characters, the fences included. `fence` is a line that opens or closes
    such a block, "" if the code is indented."""

    start: int
    end: int
    fence: str


def code_blocks(text: str, strict: bool = False) -> list[CodeBlock]:
    """Return the fenced code of a text by CommonMark's rules, also within lists and block quotes.

    Args:
        strict: the text is a whole Markdown file, in which indented code counts and HTML comments hold no fences.
            Otherwise a fence counts whatever its indentation.
    """
    if not strict and "```" not in text and "~~~" not in text:
        return []
    tokens: list = []
    parser = _STRICT if strict else _LENIENT
    parser.block.parse(text, parser, {}, tokens)
    line_starts = [0, *(match.end() for match in re.finditer("\n", text)), len(text)]
    blocks, quotes = [], 0  # open block quotes
    for token in tokens:
        if token.type in ("blockquote_open", "blockquote_close"):
            quotes += token.nesting
        elif token.type in ("fence", "code_block"):
            first, last = token.map
            fence = "> " * quotes + token.markup[:MAX_FENCE] if token.markup else ""
            blocks.append(CodeBlock(line_starts[first], line_starts[min(last, len(line_starts) - 1)], fence))
    return blocks


def fence_code(code: str, language: str = "") -> str:
    """Return code between fences that are longer than any run of backticks in it."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def split_code(text: str, strict: bool = False) -> list[tuple[bool, str]]:
    """Split a text into runs of whole lines, (is code, run), as `code_blocks` finds them; the runs, joined, are the
    text."""
    runs, position = [], 0
    for start, end, _ in code_blocks(text, strict):
        runs += [(False, text[position:start]), (True, text[start:end])]
        position = end
    return [(code, run) for code, run in [*runs, (False, text[position:])] if run]


def split_prose(text: str) -> list[Piece]:
    """Split a text into sentences, list items, headings, table rows and runs of fenced code."""
    pieces, position = [], 0
    pattern = UNSPACED_BOUNDARY if UNSPACED.search(text) else PROSE_BOUNDARY
    for code, run in split_code(text):
        boundaries = [] if code else [boundary.span() for boundary in pattern.finditer(run)]
        starts = [0, *(end for _, end in boundaries)]
        for start, end in zip(starts, [*(start for start, _ in boundaries), len(run)]):
            piece = run[start:end]
            if piece.strip():
                prose = not code and not HEADING_OR_ROW.match(piece)
                pieces.append(Piece(position + start, position + end, prose))
        position += len(run)
    return pieces
