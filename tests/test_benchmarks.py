"""The benchmarks run to their end, at the smallest sizes; and what a command is called when it explains itself."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks import ablation, common, optimize

pytestmark = pytest.mark.slow
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
COMMANDS = {
    "encode": (["--documents", "2", "--peer-batches", "2", "--batch-sizes", "1", "auto"], "ours, auto, batch 1"),
    "stream": (["--documents", "30"], "resident MiB"),
    "query": (["--documents", "2"], "ours, idf"),
    "engine": (["--passages", "50", "--queries", "2"], "words, 100 hits"),
    "fidelity": ([], "plain formula"),
    "evaluate": (["--vectors", "50", "--queries", "2"], "peak memory, MB"),
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


def test_rows_of_models_are_measured_against_bm25_and_with_it(beir, monkeypatch, capsys):
    models = ["--model", "splade-tiny", "--model", "splade-tiny", "splade-tiny"]
    monkeypatch.setattr(sys, "argv", ["quality", "--collection", str(beir), *models, "--device", "cpu"])
    runpy.run_module("benchmarks.quality", run_name="__main__")
    *_, bm25, one, two = capsys.readouterr().out.strip().splitlines()
    assert bm25.startswith("BM25 ") and one.startswith("splade-tiny ") and two.startswith("splade-tiny splade-tiny ")
    assert two.split()[2] == one.split()[1] and "+0.000 (+0.000 to +0.000)" in two


def test_shifts_between_collections_are_measured(beir, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    shutil.copytree(beir, other)
    for folder, word in ((beir, "engine"), (other, "soup")):
        texts = [f"The {word} number {i} is hot. Do not open the {word} before noon, or wait." for i in range(12)]
        for name, prefix in (("corpus", "d"), ("queries", "q")):
            records = ({"_id": f"{prefix}{i}", "title": "", "text": text} for i, text in enumerate(texts))
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        judged = "".join(f"q{i}\td{i}\t1\n" for i in range(12))
        (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    options = ["--collection", str(beir), str(other), "--tuned", "splade-tiny", "splade-tiny", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["drift", *options, "--draws", "2", "--mixtures", "1"])
    runpy.run_module("benchmarks.drift", run_name="__main__")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["none", "documents,", "beir"] in [row[:3] for row in rows]
    assert sum(row[:1] == ["50%"] for row in rows) == 2


def test_rows_of_the_ablation_are_made_once_and_a_failure_names_its_log(beir, docs, tmp_path, monkeypatch, capsys):
    texts = [(docs / name).read_text() for name in ("engine.md", "brakes.txt")]
    records = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts, 1)]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(ablation, "ROWS", {"bm25": ("--teacher bm25 --epochs 1 --device cpu", "")})
    arguments = ["--collection", str(beir), "--work-dir", str(tmp_path / "work"), "--seeds", "1", "2"]
    monkeypatch.setattr(sys, "argv", ["ablation", *arguments])
    ablation.main(ablation.parse_args())
    made = capsys.readouterr().out.splitlines()[-2:]
    assert made[0].split()[:3] == ["row", "options", "beir"] and made[1].startswith("bm25  --teacher bm25")
    run = ablation._run
    monkeypatch.setattr(ablation, "_run", lambda *arguments: pytest.fail("made again"))
    ablation.main(ablation.parse_args())
    assert capsys.readouterr().out.splitlines()[-2:] == made
    monkeypatch.setattr(ablation, "_run", run)
    monkeypatch.setattr(ablation, "ROWS", {"bm25": ("--teacher none", "--crops 1")})
    monkeypatch.setattr(sys, "argv", ["ablation", *arguments, "3"])
    with pytest.raises(ValueError, match=r"train_splade.py ended with exit code 2; what it printed is in .*log.txt"):
        ablation.main(ablation.parse_args())


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


@pytest.mark.parametrize("name", ["awsdocs", "covidqa", "gitbugs"])
def test_queries_that_a_model_wrote_are_added_to_training_data(name, tmp_path, monkeypatch, capsys):
    queries = ROOT / "benchmarks" / "model_queries" / f"{name}.jsonl"
    records = [json.loads(line) for line in queries.read_text(encoding="utf-8").splitlines()]
    assert len({record["positive_id"] for record in records}) == len({r["query"] for r in records}) == 300
    corpus = [{"_id": record["positive_id"], "text": f"Document {i}. " * 9000} for i, record in enumerate(records)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    example = {"query": "q", "positive_document": "d", "source": "other"}
    (tmp_path / "train.json").write_text(json.dumps([example]))
    (tmp_path / "test.json").write_text(json.dumps([example | {"source": records[0]["positive_id"]}]))
    options = {"collection": tmp_path, "queries": queries, "train-file": tmp_path / "train.json"}
    options |= {"held-out": tmp_path / "test.json", "output-file": tmp_path / "all.json"}
    monkeypatch.setattr(sys, "argv", ["add", *(str(part) for k, v in options.items() for part in (f"--{k}", v))])
    runpy.run_module("benchmarks.add_model_queries", run_name="__main__")
    assert "1 examples and 299 queries of a model" in capsys.readouterr().out
    added = json.loads((tmp_path / "all.json").read_text())[1]
    own = records[1]
    assert (added["query"], added["source"]) == (own["query"], own["positive_id"])
    start, end = own.get("span", (0, None))
    assert added["positive_document"] == corpus[1]["text"][start:end].strip()


def test_engines_are_measured_beside_the_exact_scores(beir, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["engines_parity", "--collection", str(beir), "--device", "cpu"])
    runpy.run_module("benchmarks.engines_parity", run_name="__main__")
    first, heading, *rows = capsys.readouterr().out.splitlines()
    assert first == "3 documents, 2 queries; exact: nDCG@10 1.0000"
    assert heading.split()[:3] == ["engine", "by", "overlap"] and len(rows) == 8
    assert all(row.split()[-3] == "1.0000" for row in rows)


def test_each_step_of_optimizing_is_measured(beir, monkeypatch, capsys):
    monkeypatch.setitem(common.SHAPES, "bert-base", SMALL)
    options = ["--input-dir", str(beir), "--model-name", "bert-base", "--documents", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["optimize", *options, "--test-file", str(beir), "--prune-inputs"])
    runpy.run_module("benchmarks.optimize", run_name="__main__")
    rows = {row[""]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]}
    assert rows["int8"]["MB"] < rows["ours, float32"]["MB"]
    assert rows["pruned, inputs too, int8"]["MB"] < rows["pruned, int8"]["MB"]
    assert rows["ONNX, float32"]["nDCG@10"] == rows["ours, float32"]["nDCG@10"]


def test_a_peer_that_cannot_open_its_models_is_told_of(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'optimum'\" >&2\n")
    python.chmod(0o755)
    with pytest.raises(ValueError, match="python: ModuleNotFoundError: No module named 'optimum'"):
        optimize.Peer(str(python), "splade-tiny", str(tmp_path), ["a text"])
