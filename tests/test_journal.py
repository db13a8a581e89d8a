"""A journal outlives what writes it."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from utils.journal import Journal


def found(path, model="a"):
    """The results that a resumed run finds."""
    return Journal(path, {"model": model}, resume=True).found


def test_findings_are_there_after_a_crash(tmp_path, capsys):
    path = tmp_path / "j"
    first = Journal(path, {"model": "a"})
    first.add({"x": 0.5, "y": [1, "ä\n"]})
    del first
    with path.open("a") as file:  # a line that a crash cut short
        file.write('["z", 0.')
    second = Journal(path, {"model": "a"}, resume=True)
    assert second.found == {"x": 0.5, "y": [1, "ä\n"]} and "left out line 4, broken" in capsys.readouterr().out
    second.add({"z": 2})
    del second
    third = Journal(path, {"model": "a"}, resume=True)
    assert third.found == {"x": 0.5, "y": [1, "ä\n"], "z": 2} and not capsys.readouterr().out
    third.remove()
    assert not path.exists()


def test_without_a_result_no_file_is_left(tmp_path):
    journal = Journal(tmp_path / "j", {"model": "a"})
    del journal
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "broken", [b'["x", 1]["y', b"\0\0\0\0", b"7", b"\xff\xfe", b'[["x"], 1]', b'["x"]'], ids=lambda line: repr(line)
)
def test_a_broken_line_is_left_out_and_the_others_are_kept(tmp_path, capsys, broken):
    path = tmp_path / "j"
    path.write_bytes(b'{"model": "a"}\n["w", 1]\n' + broken + b'\n["z", 2]\n')
    journal = Journal(path, {"model": "a"}, resume=True)
    assert journal.found == {"w": 1, "z": 2}
    assert f"{path}: left out line 3, broken by a crash; the other results are kept" in capsys.readouterr().out
    journal.add({"y": 3})
    del journal
    assert found(path) == {"w": 1, "z": 2, "y": 3} and not capsys.readouterr().out


def test_a_broken_first_line_loses_no_result_and_is_said_once(tmp_path, capsys):
    path = tmp_path / "j"
    path.write_text('{"mod\n["x", 1]\n')
    assert found(path) == {"x": 1}
    said = 'left out line 1, broken by a crash; the other results are taken to be of {"model": "a"}'
    assert said in capsys.readouterr().out
    assert found(path) == {"x": 1} and not capsys.readouterr().out
    with pytest.raises(ValueError, match="begun with model a, not b"):
        found(path, model="b")


@pytest.mark.parametrize("text", ["", '{"model"', '{"model": "a"}\n', '{"model": "a"}\n["x'])
def test_a_crash_before_the_first_result_leaves_nothing(tmp_path, text):
    (tmp_path / "j").write_text(text)
    journal = Journal(tmp_path / "j", {"model": "a"})
    journal.add({"x": 1})
    del journal
    assert found(tmp_path / "j") == {"x": 1}


@pytest.mark.parametrize(
    ("model", "resume", "message"), [("a", False, "by `resume=True`"), ("b", True, "begun with model a, not b")]
)
def test_other_work_is_not_gone_on_with(tmp_path, model, resume, message):
    Journal(tmp_path / "j", {"model": "a"}).add({"x": 1})
    with pytest.raises(ValueError, match=message):
        Journal(tmp_path / "j", {"model": model}, resume)


@pytest.mark.parametrize("text", ["some text\n", "some text", "{\n}\n"])
def test_a_file_that_is_no_journal_is_said_to_be_none_and_kept(tmp_path, text):
    (tmp_path / "j").write_text(text)
    with pytest.raises(ValueError, match="is not a journal"):
        Journal(tmp_path / "j", {"model": "a"}, resume=True)
    assert (tmp_path / "j").read_text() == text


def test_a_second_run_is_refused_until_the_first_ends_even_by_a_kill(tmp_path):
    path = tmp_path / "j"
    code = (
        "import sys; from utils.journal import Journal\n"
        "j = Journal(sys.argv[1], {'model': 'a'}); print('open', flush=True)\n"
        "sys.stdin.readline(); j.add({'x': 1}); print('added', flush=True); sys.stdin.readline()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "open\n"
        for resume in (False, True):  # before its first result
            with pytest.raises(ValueError, match="another run is at work on it"):
                Journal(path, {"model": "a"}, resume)
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "added\n"
        with pytest.raises(ValueError, match="another run is at work on it"):
            Journal(path, {"model": "a"}, resume=True)
        os.kill(process.pid, signal.SIGKILL)
    assert found(path) == {"x": 1}


def test_without_locks_on_the_platform_a_journal_still_works(tmp_path):
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from utils.journal import Journal; Journal(sys.argv[1], {}).add({'x': 1})"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "j"], cwd=ROOT, check=True)
    assert Journal(tmp_path / "j", {}, resume=True).found == {"x": 1}
