"""The benchmarks run to their end, at the smallest sizes; and what a command is called when it explains itself."""

import runpy
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import common

pytestmark = pytest.mark.slow
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
COMMANDS = {
    "encode": (["--documents", "2", "--peer-batches", "2"], "ours, auto"),
    "stream": (["--documents", "30"], "resident MiB"),
    "query": (["--documents", "2"], "ours, idf"),
    "fidelity": ([], "plain formula"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_runs_to_its_end(name, docs, beir, monkeypatch, capsys):
    options, shown = COMMANDS[name]
    monkeypatch.setitem(common.SHAPES, "bert-base", SMALL)
    source = beir if name == "fidelity" else docs
    arguments = ["--input-dir", str(source), "--model-name", "bert-base", "--rounds", "1", "--device", "cpu", *options]
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert shown in capsys.readouterr().out


def test_a_benchmark_says_which_files_it_does_not_read(docs, capsys):
    (docs / "broken.json").write_text("{")
    assert len(common.sample(common.parser(None, 1, 3).parse_args(["--input-dir", str(docs)]))) == 3
    assert f"skipped {docs / 'broken.json'}: line 1: broken JSON" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["python -m tool", "python tool.py"])
def test_a_script_names_itself_as_it_was_started(way, tmp_path):
    (tmp_path / "tool.py").write_text(
        f"import sys\nsys.path.append({str(ROOT)!r})\nfrom utils.arguments import ScriptParser\n"
        "ScriptParser('doc').parse_args()\n"
    )
    command = [sys.executable, *way.split()[1:]]
    done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {way} [flags]\n")
    done = subprocess.run([*command, "--none"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith(f"(see: {way} --help)\n")
