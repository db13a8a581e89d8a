"""What all parsers share: the page that they return, and text in the encoding of a file's bytes."""

import codecs
from pathlib import Path
from typing import NamedTuple

import chardet

# Labels and their supersets that are meant by them (encoding.spec.whatwg.org), by Python's names.
SUPERSETS = {
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **{"iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874", "shift_jis": "cp932", "euc_kr": "cp949"},
}
MAX_TEXT_BYTES = 20_000_000  # bytes; a larger text file is unlikely to be a document that was written for people
MIN_LEGACY_BYTES = 5  # bytes beyond ASCII; from fewer no encoding can be told, and the most common, cp1252, is assumed
# Confidence of chardet; above it, it was right for 204 of 216 texts in 20 languages, alone and within English.
SURE = 0.2
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


def read_text_bytes(path: Path) -> bytes:
    """Return the bytes of a text file.

    Raises:
        ValueError: they are more than MAX_TEXT_BYTES.
    """
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"{path}: holds {size / 1e6:,.0f} MB, more than {MAX_TEXT_BYTES / 1e6:.0f}; split it")
    return path.read_bytes()


def decode(data: bytes, path: Path, declared: str = "") -> str:
    """Decode a file's bytes by their byte order mark; else as UTF-8, if more of the characters beyond ASCII are valid
    than not; else in the `declared` encoding, if all are valid there; else in the detected one. Invalid bytes of UTF-8
    are taken for cp1252, other invalid ones become U+FFFD. Lines end in "\\n". `path` is named in errors.

    Raises:
        ValueError: the bytes are no text.
    """
    mark = next((mark for mark in BYTE_ORDER_MARKS if data.startswith(mark)), None)
    encoding = BYTE_ORDER_MARKS[mark] if mark else _encoding(data, declared)
    text = data.decode(encoding, "cp1252" if encoding == "utf-8" else "replace") if encoding else "\0"
    if "\0" in text:
        raise ValueError(f"{path}: binary, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _encoding(data: bytes, declared: str) -> str | None:
    """Return the name of the encoding of text without a byte order mark, None if it is no text."""
    if b"\0" not in data and b"\x1b$" not in data:  # UTF-16 has zeros for ASCII, ISO-2022 is ASCII with escapes.
        text = data.decode("utf-8", "replace")
        invalid = text.count("\ufffd")
        valid = len(text) - len(text.encode("ascii", "ignore")) - invalid
        if valid >= invalid:
            return "utf-8"
    try:
        name = _superset(codecs.lookup(declared).name)
        if "\0" not in data.decode(name):
            return name
    except (LookupError, ValueError):
        pass
    found = chardet.detect(data)
    if found["encoding"] and b"\0" not in data and not data.isascii():
        # What is ASCII may hide the rest: Latin scripts are told by their lines, others by their words alone.
        lines = b"\n".join(line for line in data.splitlines() if not line.isascii())
        words = b" ".join(word for word in lines.split() if not word.isascii())
        count = len(words.translate(None, delete=bytes(range(128))))
        alone = chardet.detect(words if count > len(words) / 2 else lines)
        found = alone if alone["confidence"] > SURE else found
        if count < MIN_LEGACY_BYTES:
            return "cp1252"
    return found["encoding"] and _superset(codecs.lookup(found["encoding"]).name)


def _superset(encoding: str) -> str:
    return SUPERSETS.get(encoding, encoding)


def _decode_as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Decode invalid bytes, as a handler of errors."""
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("cp1252", _decode_as_cp1252)
