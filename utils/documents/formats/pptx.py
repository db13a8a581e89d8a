"""Parse PowerPoint files (PPTX): titles, text, tables, labels of charts, diagrams and notes of their slides."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from utils.documents.formats.page import Page, page_from_markdown

# Namespaces of the elements of a slide.
_OOXML = "http://schemas.openxmlformats.org"
COMPATIBILITY = f"{{{_OOXML}/markup-compatibility/2006}}"
DRAWING = f"{{{_OOXML}/drawingml/2006/main}}"
CHART = f"{{{_OOXML}/drawingml/2006/chart}}"
DIAGRAM = f"{{{_OOXML}/drawingml/2006/diagram}}"
RELATIONSHIPS = f"{{{_OOXML}/officeDocument/2006/relationships}}"


def read_pptx(path: Path) -> Page:
    """Read a PPTX file: a section for each slide, with its title as heading, then its text, lists, tables, labels
    of charts and diagrams (SmartArt), then its notes. The title of the file is that of the first slide.

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
            _take_choices(slide.element)
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


def _take_choices(slide: Any) -> None:
    """Replace, in place, each element that is there in several versions, for newer and older programs, by the first."""
    for alternatives in list(slide.iter(f"{COMPATIBILITY}AlternateContent")):
        for element in [element for choice in alternatives[:1] for element in choice]:
            alternatives.addprevious(element)
        alternatives.getparent().remove(alternatives)


def _texts(shapes: Iterable[Any]) -> Iterator[str]:
    """Yield the text of each shape, in groups too, as Markdown; a placeholder's paragraphs are list items. A chart
    or diagram whose part of the file is missing or broken has none."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes)
        elif shape.has_table:
            head, *rows = ([" ".join(cell.text.split()) for cell in row.cells] for row in shape.table.rows)
            yield "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
        elif shape.has_chart:
            with contextlib.suppress(KeyError):
                chart = shape.chart.element
                names = (name.text for name in chart.iterfind(f".//{CHART}strCache//{CHART}v") if name.text)
                yield "\n".join([*_paragraphs(chart), *dict.fromkeys(names)])
        elif shape.has_text_frame:
            paragraphs = [paragraph for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
            listed = shape.is_placeholder and len(paragraphs) > 1
            yield "\n".join(f"{'  ' * p.level}- {p.text}" if listed else p.text for p in paragraphs)
        else:
            for ids in shape.element.iter(f"{DIAGRAM}relIds"):
                with contextlib.suppress(KeyError, etree.XMLSyntaxError):
                    data = shape.part.related_part(ids.get(f"{RELATIONSHIPS}dm")).blob
                    yield "\n".join(f"- {text}" for text in _paragraphs(etree.fromstring(data)))


def _paragraphs(element: Any) -> list[str]:
    """Return the text of each paragraph of DrawingML in an element that holds some."""
    paragraphs = ("".join(run.text or "" for run in p.iter(f"{DRAWING}t")) for p in element.iter(f"{DRAWING}p"))
    return [text for text in paragraphs if text.strip()]
