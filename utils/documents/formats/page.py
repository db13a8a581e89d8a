"""What all parsers share: the page that they return, and text in the encoding of a file's bytes."""

import codecs
from pathlib import Path
from typing import NamedTuple

import chardet

# Share of a text's characters. Up to it, invalid bytes are dropped from UTF-8; above it, another encoding is detected.
MAX_INVALID_SHARE = 0.01
# UTF-32 stands before UTF-16: the little-endian mark of UTF-32 begins with that of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Page(NamedTuple):
    """Title of a file, "" if it has none, and its content as Markdown."""

    title: str
    text: str


def page_from_markdown(text: str) -> Page:
    """Return a page whose title is the first line, if that is a heading of level 1; it is removed from the text."""
    first, _, rest = text.strip().partition("\n")
    return Page(first[2:].strip(" #"), rest) if first.startswith("# ") else Page("", text)


def read_plain_text(path: Path) -> Page:
    """Read a text file, without a title.

    Raises:
        ValueError: the file is binary.
    """
    return Page("", decode(path.read_bytes(), path))


def decode(data: bytes, path: Path) -> str:
    """Decode a file's bytes by their byte order mark, else as UTF-8 with at most 1 % of invalid characters, else in the
    encoding that chardet detects. Invalid characters are dropped; lines end in "\\n". `path` is named in errors.

    Raises:
        ValueError: the bytes are no text.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    if mark:
        text = data.decode(BYTE_ORDER_MARKS[mark], errors="replace")
    else:
        text = data.decode("utf-8", errors="replace")
        if text.count("\ufffd") > MAX_INVALID_SHARE * len(text):
            encoding = chardet.detect(data)["encoding"]
            text = data.decode(encoding, errors="replace") if encoding else "\0"
    if "\0" in text:
        raise ValueError(f"{path}: binary, not text")
    return text.replace("\ufffd", "").replace("\r\n", "\n").replace("\r", "\n")
