"""Generation, training and embedding, killed at random moments: nothing is half-written, and the work can be done."""

import json
import random
import shutil
import signal
import time

import pytest
from api_server import ApiServer
from conftest import run_in_child

from utils.records import read_examples

pytestmark = pytest.mark.slow
KILLS = 20


@pytest.fixture
def kill_at_random_moments(processes, tmp_path):
    """Runs a script to its end in the folder `whole`; in the folder `killed` it is killed KILLS times on the way.

    Args:
        script: the script.
        arguments: returns its arguments for a folder.
        resumed: arguments that a run after a kill has besides.
        check: called with the two folders after each kill and at the end.

    Returns:
        How many runs were killed before they were done.
    """

    def kill(script, arguments, resumed, check):
        log = tmp_path / "log"
        whole, killed = tmp_path / "whole", tmp_path / "killed"

        def start(folder, more=()):
            process = processes.Process(target=run_in_child, args=(script, [*arguments(folder), *more], log))
            process.start()
            return process

        def end(process):
            process.join()
            assert process.exitcode == 0, log.read_text()

        started = time.monotonic()
        end(start(whole))
        seconds = time.monotonic() - started
        moments, kills, more = random.Random(7), 0, ()
        for _ in range(KILLS):
            process = start(killed, more)
            process.join(moments.uniform(0, seconds))
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
            check(whole, killed)
            if process.exitcode:
                kills, more = kills + 1, resumed
            else:  # It was done before its time came: from the beginning again.
                shutil.rmtree(killed)
                more = ()
        end(start(killed, more))
        check(whole, killed)
        assert _files(killed) == _files(whole)
        assert kills >= KILLS // 2
        return kills

    return kill


def _files(folder):
    """Return the files of a folder by their path in it, without those named by the time."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {path for path in paths if not path.parts[0].startswith("runs")}


def same_bytes(whole, killed, suffixes=(".json", ".jsonl")):
    """Each file that stands in the folder of the killed runs is, byte for byte, that of the run to the end."""
    for name in _files(killed) if killed.exists() else ():
        if name.suffix in suffixes:
            assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_generation_from_documents(kill_at_random_moments, pages):
    def arguments(folder):
        return ["--input-dir", pages, "--output-file", folder / "training_data.json", "--generator", "extractive",
                "--round-trip", "20"]  # fmt: skip

    kill_at_random_moments("generate_training_data", arguments, [], same_bytes)


def test_generation_by_a_language_model_pays_for_no_answer_twice(kill_at_random_moments, pages, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    server = ApiServer()
    workers = 2

    def arguments(folder):
        return ["--input-dir", pages, "--output-file", folder / "training_data.json", "--generator", "openai",
                "--api-base", server.url, "--workers", str(workers)]  # fmt: skip

    def check(whole, killed):
        for name in _files(killed) if killed.exists() else ():
            if name.suffix == ".json":
                assert read_examples(killed / name)

    kills = kill_at_random_moments("generate_training_data", arguments, ["--resume"], check)
    server.close()
    whole_runs = 1 + KILLS - kills + 1
    assert len(server.requests) <= whole_runs * len(list(pages.iterdir())) + kills * workers


def test_training(kill_at_random_moments, tmp_path):
    parts = ["engine", "brake", "mirror", "window", "radio", "heater", "clutch", "ladder"]
    examples = [
        {"query": f"{part} number {i}", "positive_document": f"This page explains the {part}, part {i} of the manual."}
        for i, part in enumerate(parts)
    ]
    for name in ("training", "validation"):
        (tmp_path / f"{name}_data.json").write_text(json.dumps(examples))

    interrupted, resumed = [], []

    def arguments(folder):
        interrupted.append(any(folder.glob("checkpoints/*/splade_training.json")))
        return ["--model-name", "splade-tiny", "--train-file", tmp_path / "training_data.json", "--output-dir", folder,
                "--batch-size", "2", "--epochs", "2", "--checkpoint-minutes", "0", "--device", "cpu",
                "--precision", "float32", "--threads", "1"]  # fmt: skip

    def check(whole, killed):
        log = tmp_path / "log"
        if log.exists():  # of a run to its end
            resumed.append("resuming from" in log.read_text())
            assert resumed[-1] == interrupted[-1]
            log.unlink()
        if (killed / "model.safetensors").exists():
            assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
            assert _files(killed) >= {path for path in _files(whole) if "config" in path.name}

    kill_at_random_moments("train_splade", arguments, ["--resume"], check)
    assert any(resumed)


def test_embedding(kill_at_random_moments, pages):
    def arguments(folder):
        return ["--model-dir", "splade-tiny", "--input-file", pages, "--output-file", folder / "vectors.jsonl",
                "--device", "cpu", "--threads", "1"]  # fmt: skip

    kill_at_random_moments("embedder", arguments, [], same_bytes)
