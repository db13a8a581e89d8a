"""A journal outlives what writes it."""

import pytest

from utils.journal import Journal


def test_findings_are_there_after_a_crash(tmp_path):
    first = Journal(tmp_path / "j", {"model": "a"})
    assert not first.path.exists()  # nothing found, nothing written
    first.add({"x": 0.5, "y": [1, "ä\n"]})
    with first.path.open("a") as file:  # a line that a crash cut short
        file.write('["z", 0.')
    second = Journal(tmp_path / "j", {"model": "a"}, resume=True)
    assert second.found == {"x": 0.5, "y": [1, "ä\n"]}
    second.add({"z": 2})
    third = Journal(tmp_path / "j", {"model": "a"}, resume=True)
    assert third.found == {"x": 0.5, "y": [1, "ä\n"], "z": 2}
    third.remove()
    assert not third.path.exists()


def test_a_crash_in_the_first_line_leaves_nothing(tmp_path):
    (tmp_path / "j").write_text('{"model"')
    journal = Journal(tmp_path / "j", {"model": "a"}, resume=True)
    journal.add({"x": 1})
    assert Journal(tmp_path / "j", {"model": "a"}, resume=True).found == {"x": 1}


@pytest.mark.parametrize(
    ("model", "resume", "message"), [("a", False, "by --resume"), ("b", True, "begun with model a, not b")]
)
def test_other_work_is_not_gone_on_with(tmp_path, model, resume, message):
    Journal(tmp_path / "j", {"model": "a"}).add({"x": 1})
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path / "j", {"model": model}, resume)


@pytest.mark.parametrize("text", ["some text\n", '{"model": "a"}\n7\n'])
def test_a_file_that_is_no_journal_is_said_to_be_none(tmp_path, text):
    (tmp_path / "j").write_text(text)
    with pytest.raises(ValueError, match="is not a journal"):
        Journal(tmp_path / "j", {"model": "a"}, resume=True)
    assert (tmp_path / "j").read_text() == text
