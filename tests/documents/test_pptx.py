"""PowerPoint files."""

import sys

import pptx
import pytest

from utils.documents.formats.registry import read_page


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
