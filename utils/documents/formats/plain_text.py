"""Parse plain text files: titles that are underlined, or AsciiDoc's, as Markdown's headings."""

import re
from pathlib import Path

from utils.documents.formats.page import Page, decode, page_from_markdown, read_text_bytes

LEVELS = "=-~^+"  # characters that underline a title, by its level
MAX_LENGTH_DIFFERENCE = 2  # characters that an underline may be longer or shorter than its title
# A title stands after an empty line, or after AsciiDoc's attributes in brackets; some have a line above them, too.
UNDERLINED = re.compile(r"^(?<![^\n\]]\n)(?:={3,}\n)?(?![.\[|+])(\S.*)\n(([=~^+-])\3{2,})[ \t]*$", re.MULTILINE)
ONE_LINE = re.compile(r"^(?<![^\n\]]\n)(={1,6}) (\S.*)$", re.MULTILINE)
COMMENT = re.compile(r"^(?=#{1,6}[ \t])", re.MULTILINE)


def read_plain_text(path: Path) -> Page:
    """Read a text file; its title is the first line, if that is underlined by "=" or begins with a single "=" or "#".

    Raises:
        ValueError: the file is binary, or too large.
    """
    return page_from_markdown(plain_text_to_markdown(decode(read_text_bytes(path), path)))


def plain_text_to_markdown(text: str) -> str:
    """Convert the titles of a plain text to Markdown's headings. A line that begins with "#" is a comment there, and no
    heading; it is indented by a space."""
    text = UNDERLINED.sub(_heading, COMMENT.sub(" ", text))
    return ONE_LINE.sub(lambda title: f"{'#' * len(title[1])} {title[2].rstrip(' =')}", text)


def _heading(match: re.Match) -> str:
    title, underline, character = match.groups()
    if abs(len(title.rstrip()) - len(underline)) > MAX_LENGTH_DIFFERENCE:
        return match[0]
    return f"{'#' * (LEVELS.index(character) + 1)} {title.strip()}"
