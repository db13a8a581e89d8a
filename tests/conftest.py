import contextlib
import io
import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from utils.processor import INSTRUCTION_SETS, instruction_sets

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # Triton decides when its kernels are imported

ROOT = Path(__file__).parent.parent
SEVEN_BITS = ("avx2", "avx512")  # instruction sets with which weights in 8 bits are rounded to 7


def run(script: str, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess:
    """Run one of the scripts as `python SCRIPT ARGUMENTS` does, within this process: imports are paid once."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogateescape")), "utf-8"))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code or 0
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


def run_in_child(script: str, arguments: list, log: Path, at_end: Callable[[], None] = lambda: None) -> None:
    """Run a script as `run` does, in a process made for it, call `at_end`, keep what the script printed in the file
    `log`, and end with its exit code."""
    done = run(f"{script}.py", *arguments)
    at_end()
    log.write_text(done.stdout + done.stderr)
    os._exit(done.returncode)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory):
    """A cache folder of the tests' own, with the compiled kernels of the user's: they take seconds to make."""
    from utils.files import cache_folder
    from utils.splade import kernels

    kernels.available()  # compiles them where they run
    cache = tmp_path_factory.mktemp("cache")
    (cache / "splade-toolkit").mkdir(mode=0o700)
    for library in cache_folder().glob("*.so"):
        shutil.copy2(library, cache / "splade-toolkit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


@pytest.fixture(scope="session")
def processes():
    """Processes that begin at once: each is forked from one that has imported the scripts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["generate_training_data", "score_training_data", "train_splade", "test_evaluate"])
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def fails_with_one_line(done: subprocess.CompletedProcess, *parts: str) -> None:
    """Exit code 2, one line on stderr that says all `parts`, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for part in ("error: ", *parts):
        assert part in lines[0]


@pytest.fixture(scope="session")
def tiny():
    """The real SPLADE-tiny, in float32 on the CPU."""
    from utils.splade.encoder import SpladeEncoder

    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32")


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory):
    """A function that returns the library for an instruction set of another processor, which an emulator runs."""
    from emulator import EmulatedLibrary

    cache = tmp_path_factory.getbasetemp().parent  # which the processes of pytest-xdist share
    libraries = {}

    def start(name):
        libraries[name] = libraries.get(name) or EmulatedLibrary(name, cache, tmp_path_factory.mktemp(name))
        return libraries[name]

    yield start
    for library in libraries.values():
        library.close()


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request, monkeypatch, emulated_library):
    """Each instruction set that the C++ is compiled for and that this processor or an emulator has."""
    from emulator import can_emulate

    from utils.splade import kernels

    if request.param in instruction_sets() and kernels.available():
        monkeypatch.setenv("SPLADE_ISA", request.param)
    elif can_emulate(request.param):
        library = emulated_library(request.param)
        monkeypatch.setattr(kernels, "library", lambda: library)
        monkeypatch.setattr(kernels, "call", library.call)
    else:
        pytest.skip(f"NOT RUN: neither this processor nor an emulator has {request.param}, or there is no C++ compiler")
    assert kernels.instruction_set() == request.param
    return request.param


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def packed(monkeypatch):
    """The matrices that are packed, one after the other; where the library cannot run, its calls do nothing."""
    from utils.splade import kernels

    call, seen = kernels.call, []

    def record(name, *arguments, **options):
        if name == "pack_codes":
            seen.append(arguments[0])
        return call(name, *arguments, **options) if kernels.available() else None

    monkeypatch.setattr(kernels, "call", record)
    return seen


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory):
    """The folder of a cross-encoder with random weights."""
    folder = tmp_path_factory.mktemp("cross") / "encoder"
    from transformers import BertConfig, BertForSequenceClassification

    from utils.models import load_masked_lm

    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForSequenceClassification(BertConfig(num_labels=1, **size)).save_pretrained(folder)
    load_masked_lm("splade-tiny")[1].save_pretrained(folder)
    return folder


@pytest.fixture
def qdrant(monkeypatch):
    """A server with the REST API of Qdrant; what fails there is tried again at once."""
    from qdrant_server import QdrantServer

    from utils.search import qdrant

    monkeypatch.setattr(qdrant, "FIRST_WAIT", 0.001)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    running = QdrantServer()
    yield running
    running.close()


@pytest.fixture
def docs(tmp_path):
    """A folder of a few documents in all formats."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "engine.md").write_text(
        "# Engine manual\n\nThe engine burns diesel fuel. Check the oil level every week. "
        "Never open the radiator while the engine is hot.\n\n## Starting\n\nTurn the key to start the engine. "
        "Wait until the glow lamp goes out. Cold engines need more time.\n"
    )
    (folder / "brakes.txt").write_text(
        "The brakes of the truck work with compressed air. Low pressure locks the wheels. "
        "Drain the water from the air tanks each month."
    )
    (folder / "tyres.rst").write_text(
        "Tyres\n=====\n\nWorn tyres lose grip on wet roads. Measure the tread depth with a gauge. "
        "Replace all tyres of an axle together.\n"
    )
    (folder / "lights.html").write_text(
        "<html><head><title>Lights</title><style>p {color: red}</style></head><body><p>The lamps of the truck use "
        "24 volts. A broken bulb must be changed at once. Clean the glass of the lamps with water.</p>"
        "<script>alert('no text')</script></body></html>"
    )
    (folder / "more.json").write_text('["The cabin heater needs warm coolant to work well in winter", {"content": ""}]')
    (folder / "more.jsonl").write_text(
        '{"_id": "mirror-1", "title": "Mirrors", "text": "Adjust both mirrors before you drive. A dirty mirror hides '
        'other cars. The mirrors are heated.", "metadata": {"truck": "T 7"}}\n'
    )
    return folder


@pytest.fixture
def pages(tmp_path):
    """Twelve short documents."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for i, part in enumerate(
        ["engine", "brake", "mirror", "heater", "tyre", "lamp", "wiper", "clutch", "radio", "filter", "pump", "valve"]
    ):
        text = f"The {part} needs care every {i + 2} weeks. Clean the {part} with soap and warm water before winter."
        (folder / f"{part}.txt").write_text(text)
    return folder


@pytest.fixture
def beir(tmp_path):
    """A judged collection of three documents in the BEIR layout."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = {"d1": "apples and cherries are red", "d2": "a banana is yellow", "d3": "the sea is blue"}
    corpus = [{"_id": name, "title": "", "text": text} for name, text in texts.items()]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(("red fruit", "yellow fruit", "not judged"), 1)]
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t0\nq2\td2\t1\n")
    return folder


@pytest.fixture
def short_model(tmp_path):
    """The folder of a SPLADE-tiny that takes 12 tokens of a document and 6 of a query."""
    from utils.models import load_masked_lm
    from utils.splade.encoder import SpladeEncoder

    SpladeEncoder(*load_masked_lm("splade-tiny"), max_length=12, query_max_length=6).save_pretrained(tmp_path / "short")
    return tmp_path / "short"
