"""What people see: errors, and the progress of long work in a terminal, a notebook and a log file."""

import argparse
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
import time

import nbclient
import nbformat
import pytest
from conftest import ROOT

from utils import console
from utils.console import on_interrupt, print_line, progress_bar, run_script
from utils.training.guards import TrainingGuard


def test_an_error_names_arguments_in_python_and_flags_in_a_shell(capsys):
    with pytest.raises(ValueError) as raised:
        TrainingGuard(100, warm_up=0, learning_rate=1e-4).check(1, float("nan"), 1.0, 1.0)
    told = "step 1: the loss is nan; lower {} (now 0.0001), or try {}"
    assert str(raised.value) == told.format("`learning_rate`", "`precision='float32'`")
    assert console.report_error(raised.value, {"learning_rate", "precision"}) == 2
    assert console.report_error(ValueError("`a_b` of `resume=True`"), {"resume"}) == 2
    expected = [told.format("--learning-rate", "--precision float32"), "`a_b` of --resume"]
    assert capsys.readouterr().err.splitlines() == [f"error: {line}" for line in expected]


def test_a_log_file_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.05)
    start = time.monotonic()
    for number in progress_bar(range(12), desc="outer", unit="steps"):
        for _ in progress_bar(range(2), desc="inner", leave=False):
            time.sleep(0.01)
        if number == 6:
            print_line("a line")
    most = (time.monotonic() - start) / 0.05 + 1
    out, err = capsys.readouterr()
    assert out == "a line\n"
    lines = err.splitlines()
    assert 1 < len(lines) <= most and all(line.startswith("outer: ") and "/12 [" in line for line in lines)
    assert "\r" not in err and "\x1b" not in err


def test_a_log_file_gets_nothing_of_short_work(capsys):
    list(progress_bar(range(1000), desc="short"))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # 24 lines of 80 columns
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        list(progress_bar(range(3), desc="hidden", show=False))
        list(progress_bar(range(3), desc="files"))
        shown = b""
        while b"3/3" not in shown:
            shown += os.read(reader, 10_000)
    os.close(reader)
    assert b"files: 100%|" in shown and b"hidden" not in shown


def test_a_line_replaces_what_the_output_cannot_encode(monkeypatch):
    for encoding, shown in (("ascii", b"caf? ?\n"), ("utf-8", "caf\u00e9 ?\n".encode())):
        output = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding))
        print_line("caf\u00e9 \udcff")
        assert output.getvalue() == shown


def test_a_reader_that_has_enough_ends_a_script_quietly():
    source = """
        from argparse import Namespace
        from utils.console import print_line, run_script
        run_script(lambda args: [print_line("a line") for _ in range(10**6)], Namespace(debug=False))
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("script", ["embedder", "test_evaluate", "test_queries", "train_splade"])
def test_scripts_import_progress_bars_where_their_warning_is_kept_away(script):
    """tqdm warns as it is imported in a notebook without ipywidgets, once; utils.console leaves that out."""
    source = """
        import sys
        class Finder:
            def find_spec(name, path, target=None):
                if name == "tqdm.auto":
                    sys.exit("" if "utils.console" in sys.modules else "imported by something else first")
        sys.meta_path.insert(0, Finder)
        import SCRIPT
    """
    command = [sys.executable, "-c", textwrap.dedent(source).replace("SCRIPT", script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr.strip()


def test_a_notebook_gets_a_bar_in_its_cell_and_no_error():
    source = 'from utils.console import progress_bar\nfor _ in progress_bar(range(3), desc="files"): pass'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = notebook.cells[0].outputs
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert "files:" in str(outputs) and "/3 [" in str(outputs)


@pytest.mark.parametrize(
    ("advice", "said"), [("", "interrupted"), ("go on with --resume", "interrupted: go on with --resume")]
)
def test_an_interrupt_says_how_to_go_on(advice, said, capsys):
    def main(args):
        with on_interrupt(lambda: advice):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_script(main, argparse.Namespace(debug=False))
    assert stop.value.code == 130 and capsys.readouterr().err == f"\n{said}\n"
