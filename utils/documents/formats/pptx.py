"""Parse PowerPoint files (PPTX): titles, text, tables and notes of their slides."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from utils.documents.formats.page import Page, page_from_markdown


def read_pptx(path: Path) -> Page:
    """Read a PPTX file: a section for each slide, with its title as heading, then its text, lists and tables, then its
    notes. The title of the file is that of the first slide.

    Raises:
        ValueError: the file is no readable PPTX.
        ImportError: python-pptx is not installed.
    """
    try:
        import pptx
    except ImportError:
        raise ImportError("python-pptx") from None
    parts = []
    try:
        for slide in pptx.Presentation(str(path)).slides:
            title = slide.shapes.title
            heading = " ".join(title.text_frame.text.split()) if title is not None else ""
            if heading:
                parts.append(f"{'##' if parts else '#'} {heading}")
            parts += _texts(shape for shape in slide.shapes if title is None or shape.shape_id != title.shape_id)
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                parts.append(slide.notes_slide.notes_text_frame.text)
    except Exception as error:  # A broken archive or its XML raises errors of many kinds.
        raise ValueError(f"{path}: is no readable PPTX: {error or type(error).__name__}") from None
    return page_from_markdown("\n\n".join(part for part in parts if part.strip()))


def _texts(shapes: Iterable[Any]) -> Iterator[str]:
    """Yield the text of each shape, in groups too, as Markdown; a placeholder's paragraphs are list items."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes)
        elif shape.has_table:
            head, *rows = ([" ".join(cell.text.split()) for cell in row.cells] for row in shape.table.rows)
            yield "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
        elif shape.has_text_frame:
            paragraphs = [paragraph for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
            listed = shape.is_placeholder and len(paragraphs) > 1
            yield "\n".join(f"{'  ' * p.level}- {p.text}" if listed else p.text for p in paragraphs)
