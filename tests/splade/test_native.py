"""Tests of compiling C++ at first use, on small sources, and that the kernels' own sources compile."""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utils.processor import INSTRUCTION_SETS, instruction_sets
from utils.splade import kernels, native

ROOT = Path(native.__file__).parents[2]
pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="NOT RUN: no g++, or not Linux on x86-64",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the sources of a library called `answer`; caches are in tmp_path."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.h").write_text("#define ANSWER 42\n")
    (folder / "one.cpp").write_text('#include "answer.h"\nint more() { return ANSWER - 1; }\n')
    (folder / "two.cpp").write_text('int more();\nextern "C" int answer() { return more() + 1; }\n')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    return folder


@pytest.fixture
def compilations(tmp_path, monkeypatch):
    """The file that a compiler of the test's own writes a line to whenever it runs."""
    compiler, log = tmp_path / "compiler", tmp_path / "log"
    compiler.write_text(f'#!/bin/sh\necho ran >> {log}\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    return log


def test_a_library_is_compiled_once_and_said(folder, compilations, capsys):
    assert native.load_library(folder, "answer").answer() == 42
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "compiling" in lines[0] and "compiled -> " in lines[1]
    native.build_library(folder, "answer")
    assert compilations.read_text() == "ran\n" and not capsys.readouterr().out
    (folder / "answer.h").write_text("#define ANSWER 43\n")
    assert ctypes.CDLL(str(native.build_library(folder, "answer"))).answer() == 43


@pytest.mark.parametrize("function", [native.build_library, native.load_library])
def test_of_several_that_need_it_one_compiles(function, folder, compilations):
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: function(folder, "answer"), range(4)))
    assert compilations.read_text() == "ran\n"


def test_a_damaged_library_is_compiled_again(folder, compilations):
    library = native.build_library(folder, "answer")
    os.truncate(library, library.stat().st_size // 2)
    assert native.load_library(folder, "answer").answer() == 42
    assert compilations.read_text() == "ran\n" * 2


def test_a_library_that_others_can_change_is_compiled_again(folder, compilations):
    library = native.build_library(folder, "answer")
    library.chmod(0o646)
    assert native.build_library(folder, "answer").stat().st_mode & 0o777 == 0o600
    assert compilations.read_text() == "ran\n" * 2
    if os.getuid() == 0:
        os.chown(library, 12345, 12345)
        assert native.build_library(folder, "answer").stat().st_uid == 0


@pytest.mark.parametrize("cache", ["", "relative", "{others}"])
def test_without_a_cache_of_ones_own_a_temporary_folder_is_used(cache, folder, tmp_path, monkeypatch):
    (tmp_path / "others" / "splade-toolkit").mkdir(parents=True)
    (tmp_path / "others" / "splade-toolkit").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", cache.format(others=tmp_path / "others"))
    monkeypatch.setenv("HOME", "/dev/null")
    library = native.build_library(folder, "answer")
    assert library.parent == tmp_path / f"splade-toolkit-{os.getuid()}"
    assert library.parent.stat().st_mode & 0o777 == 0o700


def test_no_folder_that_others_can_write_to_is_used(folder, tmp_path, monkeypatch):
    (tmp_path / f"splade-toolkit-{os.getuid()}").mkdir()
    (tmp_path / f"splade-toolkit-{os.getuid()}").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/dev/null")
    assert native.build_library(folder, "answer").parent == folder / "built"
    shutil.rmtree(folder / "built")
    (folder / "built").write_text("no folder\n")
    with pytest.raises(PermissionError, match="name one in XDG_CACHE_HOME"):
        native.load_library(folder, "answer")


def test_the_compiler_may_have_options(folder, monkeypatch):
    monkeypatch.setenv("CXX", "g++ -m64 -DMORE='4 + 1'")
    (folder / "answer.h").write_text("#define ANSWER MORE\n")
    assert native.load_library(folder, "answer").answer() == 5


@pytest.mark.parametrize(
    "compiler, message", [("g++ '", "CXX=g\\+\\+ '"), ("no-such-compiler -O2", "'no-such-compiler'")]
)
def test_a_compiler_that_cannot_be_run_is_an_error_that_names_it(compiler, message, folder, monkeypatch):
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(OSError, match=message):
        native.build_library(folder, "answer")


def test_a_blank_compiler_is_the_default_one(folder, monkeypatch):
    monkeypatch.setenv("CXX", " ")
    assert native.load_library(folder, "answer").answer() == 42


def test_what_a_killed_compilation_has_left_is_removed(folder, tmp_path, monkeypatch):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\nkill -9 $PPID\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    code = f"import pathlib, utils.splade.native as n; n.build_library(pathlib.Path({str(folder)!r}), 'a')"
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    cache = tmp_path / "cache" / "splade-toolkit"
    assert killed.returncode == -signal.SIGKILL and len([path for path in cache.iterdir() if path.is_dir()]) == 1
    compiler.write_text('#!/bin/sh\nexec g++ "$@"\n')
    native.build_library(folder, "a")
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_what_does_not_compile_is_said_in_a_line_and_leaves_no_file(folder, tmp_path, monkeypatch):
    (folder / "answer.h").write_text('#error "no such luck"\n')
    with pytest.raises(native.CompileError, match="no such luck"):
        native.load_library(folder, "answer")
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_a_library_beside_the_sources_needs_neither_compiler_nor_cache(folder, compilations, tmp_path, monkeypatch):
    library = native.build_library(folder, "answer", beside=True)
    assert library.parent == folder / "built" and not (tmp_path / "cache").exists()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert native.load_library(folder, "answer").answer() == 42
    os.truncate(library, 100)
    with pytest.raises(OSError, match="no compiler"):
        native.build_library(folder, "answer")
    monkeypatch.undo()


def test_where_nothing_can_be_written_beside_the_sources_the_cache_is_used(folder, tmp_path):
    (folder / "built").write_text("no folder\n")
    assert native.build_library(folder, "answer", beside=True).parent == tmp_path / "cache" / "splade-toolkit"


# What this processor can run is compiled by the tests that run it, what is for ARM by those that emulate it.
OTHERS = [name for name, known in INSTRUCTION_SETS.items() if known.machine == platform.machine()]
OTHERS = [name for name in OTHERS if name not in instruction_sets()]


@pytest.mark.parametrize("name", OTHERS)
def test_the_kernels_compile_for_what_this_processor_cannot_run(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", native.FLAGS.replace("-O3", "-O0"))  # takes a quarter of the time
    library = ctypes.CDLL(str(native.build_library(kernels.SOURCES, name, INSTRUCTION_SETS[name].flags)))
    for function in ("pack_codes", "pack_floats", "find", "collect", "backward", "linear", "layer"):
        assert getattr(library, function)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """No kernels are loaded or built yet: their sources are copied."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        kernels, "SOURCES", shutil.copytree(kernels.SOURCES, tmp_path / "cpp", ignore=lambda *_: ["built"])
    )
    kernels._load.cache_clear()
    yield
    kernels._load.cache_clear()


def test_where_the_compiler_does_not_know_the_best_instructions_the_next_ones_are_used(
    fresh, tmp_path, monkeypatch, capsys
):
    here = instruction_sets()
    if len(here) < 2:
        pytest.skip("NOT RUN: this processor has one instruction set alone")
    compiler = tmp_path / "compiler"
    flag = INSTRUCTION_SETS[here[0]].flags.split()[-1]
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *"{flag} "*) echo error: {flag} >&2; exit 1;; esac\nexec g++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert kernels.instruction_set() == here[1]
    first, *_ = capsys.readouterr().out.splitlines()[1:]
    assert f"error: {flag}" in first and "older instructions" in first


def test_without_a_compiler_one_line_says_that_torch_computes(fresh, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not kernels.available() and not kernels.available()
    (line,) = capsys.readouterr().out.splitlines()
    assert "torch" in line and "no-such-compiler" in line


def test_the_install_says_what_it_chose_and_what_it_cannot_use(tmp_path):
    def install(**environment):
        command = [sys.executable, "-m", "utils.splade.kernels"]
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | environment
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert f"kernels in C++ by {kernels.instruction_set()}" in install().stdout
    wrong = install(SPLADE_ISA="nonsense")
    assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1 and "nonsense" in wrong.stderr
    assert "torch's own operations" in install(SPLADE_ISA="torch").stdout
