"""A file of vectors outlives interrupts, and is the same whether one process writes it or two."""

import json
import os
import socket

import pytest
from conftest import fails_with_one_line, run, run_in_child

from utils.records import Document
from utils.splade import vector_lines
from utils.splade.vector_lines import VectorLines

WINDOW = 4


@pytest.fixture
def encode(pages, tmp_path, monkeypatch):
    """Encode the twelve pages into a file, in windows of four; `stop_at` interrupts at so many vectors."""
    monkeypatch.setattr(vector_lines, "WINDOW", WINDOW)
    add = VectorLines.add

    def encoded(name, *options, stop_at=None):
        def add_or_stop(lines, *line):
            if lines._added == stop_at:
                raise KeyboardInterrupt
            add(lines, *line)

        monkeypatch.setattr(VectorLines, "add", add_or_stop)
        options = ["--input-file", pages, "--output-file", tmp_path / "out" / name, "--device", "cpu", *options]
        return run("embedder.py", "--model-dir", "splade-tiny", *options)

    return encoded


@pytest.fixture
def whole(encode, tmp_path):
    """The bytes of the file that no interrupt came between."""
    assert encode("whole.jsonl").returncode == 0
    return (tmp_path / "out" / "whole.jsonl").read_bytes()


def test_an_interrupted_run_goes_on_where_it_was(encode, whole, tmp_path):
    out = tmp_path / "out" / "cut.jsonl"
    done = encode(out.name, stop_at=10)
    assert done.returncode == 130 and "interrupted: the same command goes on where it was" in done.stderr
    assert not out.exists()
    done = encode(out.name, stop_at=3)
    assert done.returncode == 130
    done = encode(out.name)
    assert done.returncode == 0 and "8 of them were there from an earlier run" in done.stdout
    assert out.read_bytes() == whole
    assert sorted(path.name for path in out.parent.iterdir()) == ["cut.jsonl", "whole.jsonl"]
    assert "earlier run" not in encode(out.name).stdout


def test_documents_of_two_lines_go_on_too(encode, pages, tmp_path):
    options = ["--engine", "opensearch"]
    assert encode("whole.jsonl", *options).returncode == 0
    assert encode("cut.jsonl", *options, stop_at=9).returncode == 130
    fails_with_one_line(encode("cut.jsonl"), "was begun with engine opensearch, not None; go on with the same")
    done = encode("cut.jsonl", *options)
    assert done.returncode == 0 and "8 of them were there from an earlier run" in done.stdout
    content = (tmp_path / "out" / "cut.jsonl").read_bytes()
    assert content == (tmp_path / "out" / "whole.jsonl").read_bytes()
    actions = [json.loads(line) for line in content.splitlines()[::2]]
    assert [action["index"]["_id"] for action in actions] == sorted(path.name for path in pages.iterdir())


@pytest.mark.parametrize("damage", ["a half line", "zeros", "another text", "a new document"])
def test_what_is_broken_or_has_changed_is_encoded_anew(encode, whole, damage, pages, tmp_path):
    out, journal = tmp_path / "out" / "cut.jsonl", tmp_path / "out" / "cut.jsonl.journal"
    encode(out.name, stop_at=8)
    content = journal.read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 1 + 8
    if damage == "a half line":
        journal.write_bytes(content[:-100])
    elif damage == "zeros":
        journal.write_bytes(b"".join(lines[:6]) + bytes(200) + b"\n" + b"".join(lines[7:]))
    elif damage == "another text":
        (pages / "lamp.txt").write_text("The lamp is new.")
    else:
        (pages / "index.txt").write_text("The parts of the truck.")
    done = encode(out.name)
    assert done.returncode == 0 and "4 of them were there from an earlier run" in done.stdout
    assert encode("whole.jsonl").returncode == 0
    now = (tmp_path / "out" / "whole.jsonl").read_bytes()
    assert out.read_bytes() == now and (now == whole) == (damage in ("a half line", "zeros"))


def test_documents_that_are_gone_leave_no_line(encode, pages, tmp_path):
    out = tmp_path / "out" / "cut.jsonl"
    encode(out.name, stop_at=9)
    for path in sorted(pages.iterdir())[6:]:
        path.unlink()
    assert encode(out.name).returncode == 0
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == sorted(p.name for p in pages.iterdir())


@pytest.mark.parametrize(
    ("options", "name"),
    [(["--words"], "words False"), (["--max-length", 9], "max_length 512"), (["--queries"], "max_")],
)
def test_other_flags_are_refused_and_nothing_is_lost(encode, options, name, tmp_path):
    journal = tmp_path / "out" / "v.jsonl.journal"
    encode("v.jsonl", stop_at=6)
    before = journal.read_bytes()
    fails_with_one_line(encode("v.jsonl", *options), f"v.jsonl.journal: was begun with {name}", "or remove this file")
    assert journal.read_bytes() == before
    journal.write_text("[1]\n")
    fails_with_one_line(encode("v.jsonl"), "v.jsonl.journal: is not a journal of interrupted work")
    assert journal.read_text() == "[1]\n"


def test_an_interrupt_before_the_first_vector_leaves_nothing(encode, tmp_path):
    assert encode("v.jsonl", stop_at=0).returncode == 130
    assert not list((tmp_path / "out").iterdir())


def test_an_interrupt_before_the_first_vector_loses_none_of_an_earlier_run(tmp_path):
    documents = [Document(id=str(number), text="text") for number in range(3)]
    with VectorLines(tmp_path / "v.jsonl", {}) as lines:
        for document in lines.missing(documents):
            lines.add(document, "{}", 1)
    with pytest.raises(KeyboardInterrupt), VectorLines(tmp_path / "v.jsonl", {}):
        raise KeyboardInterrupt
    with VectorLines(tmp_path / "v.jsonl", {}) as lines:
        assert list(lines.missing(documents)) == [] and lines.kept == 3


def test_a_process_can_join_the_lines_that_another_has_flushed(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_lines, "WINDOW", WINDOW)
    documents = [Document(id=str(number), text="text") for number in range(WINDOW * 2)]
    work = [VectorLines(tmp_path / "v.jsonl", {}, process, 2) for process in (0, 1)]
    with work[0] as first, work[1] as second:
        for lines in (first, second):
            for document in lines.missing(documents):
                lines.add(document, json.dumps({"id": document.id}), 1)
            lines.flush()
        assert first.join() == (len(documents), len(documents))


def run_as(process, port, *arguments):
    """Run the script as torchrun starts one of two processes."""
    place = {"RANK": str(process), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ.update(place)
    vector_lines.WINDOW = WINDOW
    run_in_child("embedder", *arguments)


def test_two_processes_write_the_file_of_one(processes, encode, whole, pages, tmp_path):
    out = tmp_path / "out" / "two.jsonl"
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    arguments = ["--model-dir", "splade-tiny", "--input-file", pages, "--output-file", out, "--device", "cpu",
                 "--threads", "1"]  # fmt: skip
    logs = [tmp_path / "first", tmp_path / "second"]
    both = [processes.Process(target=run_as, args=(i, port, arguments, log)) for i, log in enumerate(logs)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0], [log.read_text() for log in logs]
    assert "12 vectors" in logs[0].read_text() and not logs[1].read_text()
    assert out.read_bytes() == whole and len(list(out.parent.iterdir())) == 2


def test_the_lines_of_a_process_that_died_are_missed_and_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_lines, "WINDOW", WINDOW)
    documents = [Document(id=str(i), text="a") for i in range(11)]
    out = tmp_path / "v.jsonl"

    def work(process, stop_at=99):
        with VectorLines(out, {"model": "a"}, process, 2) as lines:
            for count, document in enumerate(lines.missing(documents)):
                if count < stop_at:
                    lines.add(document, document.id, 1)
            return lines.join()

    for stopped in (lambda: work(0), lambda: work(1, stop_at=2)):
        with pytest.raises(OSError, match=r"v.jsonl: the journals of the 2 processes are not all in its folder"):
            stopped()
        assert not out.exists()
    assert work(1) == (11, 11)
    assert out.read_text().split() == [document.id for document in documents]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("output", [["--output-file", "v.npz"], ["--index-dir", "i"], []])
def test_several_processes_are_for_lines_alone(pages, monkeypatch, output):
    monkeypatch.setenv("WORLD_SIZE", "2")
    fails_with_one_line(run("embedder.py", "--input-file", pages, *output), "torchrun is for JSON Lines")


def test_a_pipe_gets_the_lines_at_once(pages, whole, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    options = ["--input-file", pages, "--output-file", tmp_path / "pipe", "--device", "cpu", "--max-length", 6]
    assert run("embedder.py", "--model-dir", "splade-tiny", *options).returncode == 0
    ids = [json.loads(line)["id"] for line in os.read(reader, 2**20).splitlines()]
    os.close(reader)
    assert ids == [json.loads(line)["id"] for line in whole.splitlines()]
