"""The documentation's commands parse, the flags that it names are there, and its links lead somewhere."""

import contextlib
import functools
import itertools
import re
import runpy
import shlex
import sys

import pytest
from conftest import ROOT

from utils import console
from utils.arguments import ScriptParser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md"]
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
OTHERS_FLAGS = {"--nnodes", "--nproc-per-node", "--help"}  # of torchrun, and of every parser
OTHERS_FLAGS |= {"--dtype", "--max-batch-requests", "--max-batch-tokens", "--max-client-batch-size"}  # of a server
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def commands(page):
    """The script and the arguments of each command in a page's shell blocks."""
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if ".py" not in line and "benchmarks." not in line:
                continue  # another program's, whose quotes may go on in the next line
            words = shlex.split(line, comments=True)
            for number, word in enumerate(words):
                if word.startswith("benchmarks.") or (word.endswith(".py") and "/" not in word):
                    yield (
                        word,
                        list(itertools.takewhile(lambda other: other not in ("|", ">", ">>"), words[number + 1 :])),
                    )
                    break


def start(script):
    """Run a script, or a module of the benchmarks, as a command."""
    if script.endswith(".py"):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__")


@functools.cache
def flags(script):
    """The flags that a script takes; none where a library of a benchmark is not installed."""
    found = set()

    def stop(parser, args=None):
        found.update(parser._option_string_actions)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(SystemExit, ModuleNotFoundError):
        patch.setattr(ScriptParser, "parse_args", stop)
        start(script)
    return found


COMMANDS = [
    pytest.param(script, arguments, id=f"{page.relative_to(ROOT)}-{number}-{script}")
    for page in PAGES
    for number, (script, arguments) in enumerate(commands(page))
]


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
def test_a_command_parses(script, arguments, monkeypatch, capsys):
    monkeypatch.setattr(console, "run_script", lambda main, args: None)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    try:
        start(script)
    except SystemExit:
        pytest.fail(f"{script} {shlex.join(arguments)}: {capsys.readouterr().err}")
    except ModuleNotFoundError as error:
        if script in SCRIPTS:
            raise
        # The benchmarks' own libraries are no requirement of the tests; their flags are then not checked.
        pytest.skip(f"a benchmark needs {error.name}, which is not installed")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_flags_named_beside_a_script_are_its_own_and_others_of_some_script(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    shown = {*SCRIPTS, *(script for script, _ in commands(page))}
    for span in re.findall(r"`([^`]+)`", text):
        named = shown.intersection(span.split())
        known = set().union(*map(flags, named)) if named else set().union(*map(flags, shown)) | OTHERS_FLAGS
        if not span.startswith("pip "):
            assert set(FLAG.findall(span)) <= known, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, (
                anchor
            )
