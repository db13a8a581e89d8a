"""Parse Word files (DOCX), by way of HTML."""

from pathlib import Path

from utils.documents.formats.html import page_from_html
from utils.documents.formats.page import Page


def read_docx(path: Path) -> Page:
    """Read a DOCX file; its title is the paragraph in style "Title" or "Heading 1" that it begins with.

    Raises:
        ValueError: the file is no readable DOCX.
        ImportError: mammoth is not installed.
    """
    try:
        import mammoth
    except ImportError:
        raise ImportError("mammoth") from None
    try:
        with path.open("rb") as file:
            html = mammoth.convert_to_html(file, style_map="p[style-name='Title'] => h1:fresh").value
    except Exception as error:  # A broken archive or its XML raises errors of many kinds.
        raise ValueError(f"{path}: is no readable DOCX: {error or type(error).__name__}") from None
    return page_from_html(path, html)
