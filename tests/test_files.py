"""Files and folders that appear whole or not at all."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from utils.files import append_line, cache_folder, check_writable, open_atomic, replacing_files, write_text


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_the_next_write_removes_what_a_killed_one_left_and_not_what_is_at_work(tmp_path):
    path = tmp_path / "out.json"
    code = (
        "import sys; from utils.files import open_atomic\n"
        "with open_atomic(sys.argv[1]) as file: print('open', flush=True); sys.stdin.readline(); file.write('slow')"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for end in ("killed", "at work"):
        with subprocess.Popen([sys.executable, "-c", code, path], cwd=ROOT, **pipes) as process:
            assert process.stdout.readline() == "open\n"
            if end == "killed":
                process.kill()
                continue
            write_text(path, "new")
            assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 2
            print(file=process.stdin, flush=True)
    assert path.read_text() == "slow" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write there"):
        check_writable(tmp_path / "file" / "out.json")
    with pytest.raises(OSError, match="is a folder"):
        check_writable(tmp_path)
    check_writable(tmp_path / "new" / "folder" / "out.json")
    check_writable(tmp_path / "new" / "folder", folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out.json"
    link.symlink_to("elsewhere/real.json")
    for text in ("first", "second"):
        check_writable(link)
        write_text(link, text)
        assert link.is_symlink() and (tmp_path / "elsewhere" / "real.json").read_text() == text


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    with open_atomic(pipe) as file:
        file.write("through")
    assert os.read(reader, 100) == b"through" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)


def test_new_files_take_the_place_of_all_that_belong_to_the_old_ones(tmp_path):
    for name in ("model.bin", "parts/a", "parts/b", "old/c", "notes.txt", ".unfinished-of-a-killed-process/model.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_files(tmp_path, ["parts/*", "old/*"]) as unfinished:
        (unfinished / "model.bin").write_text("half")
        raise KeyboardInterrupt
    assert {path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == {"old"}
    with replacing_files(tmp_path, ["parts/*", "old/*"]) as unfinished:
        (unfinished / "parts").mkdir()
        for name in ("model.bin", "parts/a"):
            (unfinished / name).write_text("new")
    found = {str(path.relative_to(tmp_path)): path.is_dir() or path.read_text() for path in tmp_path.rglob("*")}
    assert found == {"model.bin": "new", "parts": True, "parts/a": "new", "notes.txt": "old"}


def test_a_kill_between_two_files_leaves_no_mixture_that_seems_whole(tmp_path, monkeypatch):
    for name in ("config", "a", "z"):
        (tmp_path / name).write_text("old")
    replace, moved = os.replace, []

    def killed(source, place):
        if moved:
            raise KeyboardInterrupt
        moved.append(place)
        replace(source, place)

    def write():
        with replacing_files(tmp_path, last="config") as unfinished:
            for name in ("config", "a", "z"):
                (unfinished / name).write_text("new")

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "z": "old"}
    monkeypatch.undo()
    write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(("config", "a", "z"), "new")


def test_a_kill_before_the_last_file_leaves_nothing_of_the_old_ones_beside_it(tmp_path, monkeypatch):
    for name in ("config", "stale"):
        (tmp_path / name).write_text("old")
    unlink = Path.unlink

    def killed(path, *options, **named):
        if path.name == "stale":
            raise KeyboardInterrupt
        unlink(path, *options, **named)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt), replacing_files(tmp_path, ["stale"], "config") as unfinished:
        (unfinished / "config").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {"stale"}


@pytest.fixture
def mount(tmp_path):
    """A function that runs `mount` with its arguments; the test is skipped where that may not be done."""
    mounted = []

    def run(*arguments):
        try:
            done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"NOT RUN: nothing can be mounted here: {error}")
        if done.returncode:
            pytest.skip(f"NOT RUN: nothing can be mounted here: {done.stderr.strip()}")
        mounted.append(arguments[-1])

    yield run
    for place in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(place)], capture_output=True)


def test_a_folder_may_be_a_mount_point_in_one_that_cannot_be_written(tmp_path, mount):
    outer = tmp_path / "outer"
    model = outer / "model"
    outer.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", outer)
    model.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", model)
    mount("-o", "remount,ro", outer)
    with pytest.raises(OSError, match="cannot write there: Read-only"):
        check_writable(outer, folder=True)
    check_writable(model, folder=True)
    for text in ("old", "new"):
        with replacing_files(model) as unfinished:
            (unfinished / "parts").mkdir()
            (unfinished / "parts" / "a").write_text(text)
        assert (model / "parts" / "a").read_text() == text and len(list(model.rglob("*"))) == 2


def test_a_file_may_be_a_mount_point(tmp_path, mount):
    volume, path = tmp_path / "volume.json", tmp_path / "out.json"
    volume.write_text("old")
    path.write_text("")
    mount("--bind", volume, path)
    check_writable(path)
    write_text(path, "new")
    assert path.read_text() == volume.read_text() == "new" and len(list(tmp_path.iterdir())) == 2


def test_where_there_are_no_user_ids_the_cache_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delattr(os, "getuid")
    (tmp_path / "splade-toolkit").mkdir()
    (tmp_path / "splade-toolkit").chmod(0o777)  # what Windows says of every folder
    assert cache_folder() == tmp_path / "splade-toolkit"


def test_lines_that_processes_append_at_once_do_not_mix(tmp_path):
    path = tmp_path / "lines.jsonl"
    code = "import sys; from utils.files import append_line\nfor i in range(30): append_line(sys.argv[1], sys.argv[2])"
    marks = [letter * 30_000 for letter in "abc"]
    processes = [subprocess.Popen([sys.executable, "-c", code, path, mark], cwd=ROOT) for mark in marks]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(marks * 30)


def test_a_line_begins_behind_a_torn_one(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("whole\ntor")
    append_line(path, "new")
    append_line(path, "newer")
    assert path.read_text() == "whole\ntor\nnew\nnewer\n"


def test_a_line_that_the_disk_has_no_room_for_leaves_nothing(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, "short")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError):
            append_line(path, "long" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "short\n"
