"""Vectors in files, read a block at a time and searched whole."""

import json

import numpy as np
import pytest
from conftest import run

from utils.search import vector_files
from utils.search.vector_files import read_vectors, search_vectors
from utils.splade.vectors import to_csr

TEXTS = [f"fruit salad {'with cream ' * (i % 4)}number {i}" for i in range(25)] + ["", "the sea is blue"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The vectors of TEXTS in both formats."""
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "docs.jsonl").write_text(
        "".join(json.dumps({"id": f"é{i}", "text": t}) + "\n" for i, t in enumerate(TEXTS))
    )
    options = ["--model-dir", "splade-tiny", "--device", "cpu", "--precision", "float32"]
    for name in ("v.jsonl", "v.npz"):
        done = run("embedder.py", *options, "--input-file", folder / "docs.jsonl", "--output-file", folder / name)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["v.jsonl", "v.npz"])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_a_search_is_the_product_with_all_vectors_whatever_the_blocks(files, tiny, name, block, monkeypatch):
    monkeypatch.setattr(vector_files, "BLOCK", block)
    queries = [tiny.encode_query(query) for query in ("fruit with cream", "blue sea", "zebra")]
    found = search_vectors(files / name, queries, tiny.vocabulary_size, 6)
    vectors = list(tiny.encode(TEXTS))
    scores = (to_csr(queries, tiny.vocabulary_size) @ to_csr(vectors, tiny.vocabulary_size).T).toarray()
    for row, hits in zip(scores, found.hits):
        order = [i for i in np.argsort(-row, kind="stable")[:6] if row[i] > 0]
        assert [score for _, score in hits] == pytest.approx(row[order].tolist(), rel=1e-4)
        assert {name for name, _ in hits} <= {f"é{i}" for i in np.flatnonzero(row >= row[order[-1]] * 0.999)}
    assert found.hits[1][0][0] == "é26" and found.documents == len(TEXTS)
    assert found.frequencies.values.sum() == sum(len(vector.indices) for vector in vectors)


def test_what_is_no_file_of_vectors_is_named(files, tmp_path):
    broken = tmp_path / "v.npz"
    for content in (b"", b"PK\x03\x04 nonsense", (files / "v.npz").read_bytes()[:-300]):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"v\.npz: is no file of vectors that embedder.py wrote"):
            list(read_vectors(broken, 30522))
    np.savez(broken, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"v\.npz: is no file of vectors"):
        list(read_vectors(broken, 30522))
    lines = tmp_path / "v.jsonl"
    for value in (
        {"id": "a", "words": {"fruit": 1.0}},
        {"id": "a", "indices": [1, 2], "values": [0.5]},
        [1],
        {"id": "a"},
    ):
        lines.write_text(json.dumps({"id": "b", "indices": [3], "values": [1.0]}) + "\n" + json.dumps(value))
        with pytest.raises(ValueError, match="line 2: expected 'id', 'indices' and as many 'values'"):
            list(read_vectors(lines, 30522))
    lines.write_text("")
    with pytest.raises(ValueError, match="holds no vectors"):
        list(read_vectors(lines, 30522))


@pytest.mark.parametrize("name", ["v.jsonl", "v.npz"])
def test_vectors_of_another_vocabulary_are_refused(files, name):
    with pytest.raises(ValueError, match="has terms outside of the model's 2,000; it is of another model"):
        list(read_vectors(files / name, 2000))


def test_vectors_of_another_model_are_refused(files, tiny):
    assert len(list(read_vectors(files / "v.npz", tiny.vocabulary_size, tiny.fingerprint))) == 1
    with pytest.raises(ValueError, match=r"v\.npz: is of another model; encode the documents with this one"):
        list(read_vectors(files / "v.npz", tiny.vocabulary_size, "another"))
    assert list(read_vectors(files / "v.jsonl", tiny.vocabulary_size, "another"))  # it does not say


def test_damage_anywhere_in_a_file_of_vectors_is_one_error(files, tmp_path):
    content = (files / "v.npz").read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(content), 120):
        broken = bytearray(content)
        broken[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "v.npz").write_bytes(broken)
        try:
            list(read_vectors(tmp_path / "v.npz", 30522))
        except ValueError as error:
            assert "v.npz: " in str(error)
