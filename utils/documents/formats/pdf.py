"""Parse PDF files: the running text of their pages."""

import logging
import re
from collections import Counter
from pathlib import Path

import regex

from utils.documents.formats.page import Page
from utils.documents.normalization import HAN_AND_KANA

EDGE_LINES = 2  # lines at the top and at the bottom of a page that may be a running header or footer


def read_pdf(path: Path) -> Page:
    """Read the text of a PDF file; its title is that of its metadata.

    Raises:
        ValueError: the file is no readable PDF, is encrypted with a password, or has no text.
        ImportError: pypdf is not installed, or cryptography for an encrypted file.
    """
    try:
        import pypdf
    except ImportError:
        raise ImportError("pypdf") from None
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    try:
        reader = pypdf.PdfReader(path)
        locked = reader.is_encrypted and not reader.decrypt("")
        pages = [] if locked else [page.extract_text() for page in reader.pages]
        title = "" if locked or not reader.metadata else reader.metadata.title or ""
    except pypdf.errors.DependencyError:
        raise ImportError("cryptography") from None
    except Exception as error:  # A broken file raises errors of many kinds.
        raise ValueError(f"{path}: is no readable PDF: {str(error) or type(error).__name__}") from None
    if locked:
        raise ValueError(f"{path}: is encrypted")
    if pages and not any(page.strip() for page in pages):
        raise ValueError(f"{path}: holds no text; if its pages are scans, recognize their text first (OCR)")
    return Page(title, join_pages(pages))


def join_pages(pages: list[str]) -> str:
    """Join the text of pages. Lines at the top or bottom of more than half of them, and of more than two, are dropped
    as running headers and footers, whatever numbers they contain; wrapped lines and hyphenated words are joined, in
    Chinese and Japanese without a space."""
    page_lines = [[line.strip() for line in page.strip().splitlines()] for page in pages]
    page_keys = [[re.sub(r"\d+", "0", line) for line in lines] for lines in page_lines]
    counts = Counter(key for keys in page_keys for key in {*keys[:EDGE_LINES], *keys[-EDGE_LINES:]} if key)
    running = {key for key, count in counts.items() if count > max(2, len(pages) / 2)}
    kept: list[str] = []
    for lines, keys in zip(page_lines, page_keys):
        inner = range(EDGE_LINES, len(lines) - EDGE_LINES)
        kept += [line for i, (line, key) in enumerate(zip(lines, keys)) if key not in running or i in inner]
    text = "\n".join(kept)
    text = re.sub(r"(?<=[^\W\d_])[-\u00ad]\n(?=[^\W\d_A-Z])", "", text)
    text = regex.sub(rf"(?<=[{HAN_AND_KANA}、\uff0c,])\n(?=[{HAN_AND_KANA}])", "", text)
    return re.sub(r"(?<=[^\n.!?:;。\uff01\uff1f\uff1a\uff1b])\n(?=[^\W\d_A-Z]|\d+[ ,])", " ", text)
