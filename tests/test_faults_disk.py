"""A disk that is full, or a quota that is used up: one line, the output of an earlier run whole, nothing else left."""

import json
import os
import resource
import shutil
import subprocess

import pytest
from conftest import run_in_child

DISK = 30 * 2**20  # bytes; a model and what belongs to it fit
TEXT = "The engine burns diesel fuel and its oil needs a look every week, says page {} of the manual of the truck. "


@pytest.fixture(params=["disk", "quota"])
def disk(request, tmp_path):
    """A folder to write to, and what it is limited by: the size of its file system, or a quota for each file."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "quota":
        yield folder, "quota"
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", folder]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("NOT RUN: no small file system can be mounted here")
    yield folder, "disk"
    subprocess.run(["umount", folder], check=True)


def run_with_quota(script, arguments, log, limit):
    """Run a script in this process with files of `limit` bytes at most."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    run_in_child(script, arguments, log, at_end=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))


ENCODING = "--device cpu --threads 1"
TRAINING = f"--model-name splade-tiny --epochs 1 --batch-size 2 {ENCODING}"
SEARCH = f"--model-dir splade-tiny --query engine --top-k 20 {ENCODING}"
# Name of the output -> script, its arguments ({} is the folder of the inputs), the option for the output, and the
# bytes that there is room for.
CASES = {
    "training_data.json": (
        "generate_training_data",
        "--input-dir {}/docs.json --generator extractive",
        "--output-file",
        10_000,
    ),
    "scored.json": ("score_training_data", "--train-file {}/examples.json --teacher bm25", "--output-file", 10_000),
    "model": ("train_splade", "--train-file {}/few.json " + TRAINING, "--output-dir", 2_000_000),
    "vectors.jsonl": (
        "embedder",
        "--model-dir splade-tiny --input-file {}/docs.json " + ENCODING,
        "--output-file",
        10_000,
    ),
    "metrics.json": (
        "test_evaluate",
        "--model-dir splade-tiny --test-file {}/few.json " + ENCODING,
        "--output-file",
        0,
    ),
    "hits.json": ("test_queries", "--docs-file {}/docs.json " + SEARCH, "--output-file", 0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_is_one_line_and_the_earlier_output_stays(name, disk, processes, tmp_path):
    (folder, kind), (script, arguments, option, room) = disk, CASES[name]
    if kind == "quota" and not room:
        pytest.skip("a quota without room would stop the search engine's temporary files, before any output")
    texts = [TEXT.format(i) * 3 for i in range(60)]
    examples = [{"query": f"page {i}", "positive_document": text, "source": str(i)} for i, text in enumerate(texts)]
    (tmp_path / "docs.json").write_text(json.dumps(texts))
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    (tmp_path / "few.json").write_text(json.dumps(examples[:4]))
    earlier = folder / name
    if option == "--output-dir":
        earlier.mkdir()
        earlier = earlier / "config.json"
    earlier.write_text("of an earlier run")
    if kind == "disk":
        with (folder / "filler").open("wb") as filler:
            filler.truncate(0)
            filler.write(bytes(max(0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - room)))
    arguments = [*arguments.format(tmp_path).split(), option, str(folder / name)]
    target = (
        (run_with_quota, (script, arguments, tmp_path / "log", room))
        if kind == "quota"
        else (run_in_child, (script, arguments, tmp_path / "log"))
    )
    process = processes.Process(target=target[0], args=target[1])
    process.start()
    process.join()
    log = (tmp_path / "log").read_text()
    assert process.exitcode == 2, log
    assert [line for line in log.splitlines() if line.startswith("error: ")] == log.splitlines()[-1:]
    assert "No space left" in log or "File too large" in log or "is the disk full" in log
    assert earlier.read_text() == "of an earlier run"
    left = {path.name for path in folder.rglob("*") if path.is_file()} - {earlier.name, "filler"}
    assert not {name for name in left if name.startswith(".")}
