"""The code on the pages for programs that run an exported graph, without torch and with their own libraries."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from embedder import SpladeEmbedder
from utils.export.folders import Optimization, write_optimized

PINNED = ("numpy==", "onnxruntime==", "tokenizers==")
OUT_OF_REACH = ("NewConnectionError", "ConnectTimeout")  # what pip says without a network, not of a missing version


def page_code(name, texts):
    """The Python block of a page, with other texts."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deploy" / name).read_text("utf-8"), re.DOTALL)
    code, replaced = re.subn(r"^texts = .*$", lambda match: f"texts = {texts!r}", block, flags=re.MULTILINE)
    assert replaced == 1
    return code


def some_texts():
    """Fifty texts: paragraphs as they come, some of them empty of words, a word, and one longer than the limit."""
    pages = [(ROOT / "docs" / name).read_text("utf-8") for name in ("search.md", "training.md", "evaluation.md")]
    paragraphs = [text for text in "\n\n".join(pages).split("\n\n") if text.strip()]
    return [*paragraphs[:24], "oil", " ".join(pages[0].split()), *paragraphs[24:48]]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    write_optimized("splade-tiny", Optimization(graph="onnx"), folder / "graph", {})
    return folder / "graph"


def run_in_environment(folder, packages, code, graph):
    """Run code beside the graph in a virtual environment with some packages; return what it prints as JSON."""
    pins = folder / "pins.txt"
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines(keepends=True)
    pins.write_text("".join(line for line in lines if line.startswith(PINNED)))
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    python = next(path for path in (folder / "environment").glob("*/python*") if path.is_file())
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "-c", pins]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True)
    if any(reason in done.stderr for reason in OUT_OF_REACH):
        pytest.skip("NOT RUN: the package index, which an environment without torch is installed from, is out of reach")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([python, "-I", "-c", code], cwd=graph.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_vectors_of_embedder(vectors, texts):
    embedder = SpladeEmbedder("splade-tiny", device="cpu", precision="float32")
    for vector, own, text in zip(vectors, embedder.generate_sparse_embeddings(texts), texts, strict=True):
        difference = dict(zip(own["indices"], own["values"]))
        assert len(difference) > 3, text
        for index, value in zip(vector["indices"], vector["values"], strict=True):
            difference[int(index)] = difference.get(int(index), 0) - value
        assert np.abs(list(difference.values())).max() < 1e-4, text


def test_the_example_for_onnx_gives_the_vectors_of_the_embedder(graph, monkeypatch):
    monkeypatch.chdir(graph.parent)
    texts, names = some_texts()[15:35], {}
    exec(page_code("onnx.md", texts), names)
    assert_vectors_of_embedder(names["vectors"], texts)


@pytest.mark.slow
def test_the_example_for_onnx_runs_without_torch(graph, tmp_path):
    texts = some_texts()
    check = "import importlib.util\nassert not any(map(importlib.util.find_spec, ('torch', 'transformers')))\n"
    show = "import json\nprint(json.dumps([{name: values.tolist() for name, values in vector.items()}"
    code = check + page_code("onnx.md", texts) + show + " for vector in vectors]))"
    vectors = run_in_environment(tmp_path, ["onnxruntime", "tokenizers", "numpy"], code, graph)
    assert_vectors_of_embedder(vectors, texts)


@pytest.mark.slow
def test_the_class_for_fastembed_gives_the_vectors_of_the_embedder(graph, tmp_path):
    texts = some_texts()
    show = "import json\nprint(json.dumps([{name: values.tolist() for name, values in vector.as_object().items()}"
    code = page_code("fastembed.md", texts) + show + " for vector in vectors]))"
    vectors = run_in_environment(tmp_path, ["fastembed==0.9.1", "onnxruntime", "tokenizers", "numpy"], code, graph)
    assert_vectors_of_embedder(vectors, texts)
