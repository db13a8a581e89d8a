"""PowerPoint files."""

import sys

import pptx
import pytest
from lxml import etree
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.opc.package import Part
from pptx.opc.packuri import PackURI

from utils.documents.formats.registry import read_page

OOXML = "http://schemas.openxmlformats.org"


def test_slides_become_sections_with_lists_tables_and_notes(tmp_path):
    show = pptx.Presentation()
    first, second, third = (show.slides.add_slide(show.slide_layouts[number]) for number in (0, 1, 6))
    first.shapes.title.text, first.placeholders[1].text = "Pump\ntraining", "For fitters"
    second.shapes.title.text = "Bleeding"
    body = second.placeholders[1].text_frame
    body.text = "Open the valve"
    body.add_paragraph().text = "slowly"
    body.paragraphs[1].level = 1
    second.notes_slide.notes_text_frame.text = "Mind the spring."
    table = third.shapes.add_table(2, 2, 0, 0, 9, 9).table
    for cell, text in zip(table.iter_cells(), ("Part", "Torque", "Bolt", "20\nNm")):
        cell.text = text
    third.shapes.add_group_shape().shapes.add_textbox(0, 0, 9, 9).text_frame.text = "In a group"
    show.save(tmp_path / "a.pptx")
    assert read_page(tmp_path / "a.pptx") == (
        "Pump training",
        "For fitters\n\n## Bleeding\n\n- Open the valve\n  - slowly\n\nMind the spring.\n\n"
        "| Part | Torque |\n| --- | --- |\n| Bolt | 20 Nm |\n\nIn a group",
    )


def test_labels_of_charts_diagrams_and_text_for_newer_programs_are_read(tmp_path):
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    data = CategoryChartData()
    data.categories = ["East", "West"]
    data.add_series("Pumps sold", (1, 2))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 9, 9, data).chart
    chart.chart_title.text_frame.text = "A good year"
    nodes = f'<d xmlns:a="{OOXML}/drawingml/2006/main"><a:p><a:r><a:t>Fill, then bleed</a:t></a:r></a:p><a:p/></d>'
    part = Part(PackURI("/ppt/diagrams/data1.xml"), "application/xml", show.part.package, nodes.encode())
    frame = slide.shapes.add_table(1, 1, 0, 0, 9, 9)._element.graphic.graphicData
    frame.set("uri", f"{OOXML}/drawingml/2006/diagram")
    ids = etree.SubElement(frame, f"{{{OOXML}/drawingml/2006/diagram}}relIds")
    ids.set(f"{{{OOXML}/officeDocument/2006/relationships}}dm", slide.part.relate_to(part, "diagramData"))
    for text in ("For older programs", "For newer programs"):
        slide.shapes.add_textbox(0, 0, 9, 9).text_frame.text = text
    *_, older, newer = slide.shapes._spTree
    versions = etree.SubElement(slide.shapes._spTree, f"{{{OOXML}/markup-compatibility/2006}}AlternateContent")
    for name, version in (("Choice", newer), ("Fallback", older)):
        etree.SubElement(versions, f"{{{OOXML}/markup-compatibility/2006}}{name}").append(version)
    show.save(tmp_path / "a.pptx")
    assert read_page(tmp_path / "a.pptx").text == (
        "A good year\nPumps sold\nEast\nWest\n\n- Fill, then bleed\n\nFor newer programs"
    )


@pytest.mark.parametrize("data", [None, b"", b"<torn"])
def test_a_chart_or_diagram_without_its_part_costs_no_other_text(tmp_path, data):
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    chart_data = CategoryChartData()
    chart_data.categories = ["East"]
    chart_data.add_series("Pumps sold", (1,))
    frame = slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 9, 9, chart_data)
    next(frame._element.iter("{*}chart")).set(f"{{{OOXML}/officeDocument/2006/relationships}}id", "rId99")
    frame = slide.shapes.add_table(1, 1, 0, 0, 9, 9)._element.graphic.graphicData
    frame.set("uri", f"{OOXML}/drawingml/2006/diagram")
    ids = etree.SubElement(frame, f"{{{OOXML}/drawingml/2006/diagram}}relIds")
    if data is not None:
        part = Part(PackURI("/ppt/diagrams/data1.xml"), "application/xml", show.part.package, data)
        ids.set(f"{{{OOXML}/officeDocument/2006/relationships}}dm", slide.part.relate_to(part, "diagramData"))
    slide.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "Fill, then bleed"
    show.save(tmp_path / "a.pptx")
    assert read_page(tmp_path / "a.pptx").text == "Fill, then bleed"


@pytest.mark.parametrize("data", [b"", b"no such thing", b"PK\3\4 torn"])
def test_a_broken_file_is_refused(tmp_path, data):
    (tmp_path / "a.pptx").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.pptx: is no readable PPTX: \S"):
        read_page(tmp_path / "a.pptx")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.pptx").write_bytes(b"-")
    monkeypatch.setitem(sys.modules, "pptx", None)
    with pytest.raises(ImportError, match="python-pptx"):
        read_page(tmp_path / "a.pptx")
