"""Vectors of the real MiniLM that are kept between runs."""

import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from conftest import ROOT
from sentence_transformers import SentenceTransformer

from utils.models import resolve_model
from utils.search import vector_cache
from utils.search.scorers import open_scorer
from utils.search.vector_cache import encode_cached

TEXTS = ["a red fruit", "apples and cherries", "the brakes of a truck", "a red fruit", "waves of the sea"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "splade-toolkit"


@pytest.fixture
def encoded(monkeypatch):
    """All texts that a dense model encodes."""
    encode, texts = SentenceTransformer.encode, []

    def record(model, inputs, **options):
        texts.extend(inputs)
        return encode(model, inputs, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", record)
    return texts


@pytest.fixture(scope="module")
def minilm():
    return SentenceTransformer(resolve_model("minilm"), device="cpu")


@pytest.fixture
def vectors_of(minilm, cache, encoded):
    """Returns the vectors of texts, by MiniLM or from the cache."""
    return lambda texts, identity="": encode_cached("minilm", identity, texts, minilm.encode)


def test_a_text_is_encoded_in_one_run_of_all(cache, encoded, capsys):
    first = open_scorer("minilm", TEXTS[:2], TEXTS[2:], "cpu")
    assert sorted(encoded) == sorted(set(TEXTS)) and "cache" not in capsys.readouterr().out
    again = open_scorer("minilm", TEXTS[:2], TEXTS[2:], "cpu")
    assert len(encoded) == 4 and "minilm: 4 of 4 texts have their vectors in the cache" in capsys.readouterr().out
    np.testing.assert_array_equal(again.queries, first.queries)
    np.testing.assert_array_equal(again.documents, first.documents)
    changed = open_scorer("minilm", ["what is new"], TEXTS, "cpu")
    assert encoded[4:] == ["what is new"] and "minilm: 4 of 5 texts" in capsys.readouterr().out
    np.testing.assert_array_equal(changed.documents, [*first.queries, *first.documents])


def test_vectors_are_in_the_order_of_the_texts(vectors_of, minilm):
    vectors_of(TEXTS[3:])
    vectors = vectors_of(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, minilm.encode(TEXTS), atol=1e-6)


def test_a_model_whose_files_change_has_other_vectors(cache, encoded, tmp_path):
    for file in os.listdir(resolve_model("minilm")):
        os.symlink(os.path.join(resolve_model("minilm"), file), tmp_path / file)
    for length in (256, 4):
        (tmp_path / "sentence_bert_config.json").unlink()
        (tmp_path / "sentence_bert_config.json").write_text(f'{{"max_seq_length": {length}}}')
        scorer = open_scorer(str(tmp_path), TEXTS[2:3], ["the brakes of the sea"], "cpu")
    assert len(encoded) == 4
    assert scorer.block_scores(np.arange(1), np.arange(1)) == pytest.approx(1, abs=0.01)  # "the brakes" is what is left


def test_what_the_vectors_depend_on_tells_them_apart(vectors_of, encoded):
    vectors_of(TEXTS, "float32")
    vectors_of(TEXTS, "bfloat16")
    vectors_of(TEXTS, "float32")
    assert len(encoded) == 8


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "other arrays", "pickle", "writable by others"])
def test_a_broken_file_is_replaced(damage, vectors_of, encoded, cache, capsys):
    expected = vectors_of(TEXTS)
    (file,) = cache.glob("*.npz")
    whole = file.read_bytes()
    middle = len(whole) // 2
    if damage == "other arrays":
        np.savez(file, keys=np.zeros(4, "V16"))
    elif damage == "pickle":
        with np.load(file) as arrays:
            np.savez(file, keys=arrays["keys"].astype(object), vectors=arrays["vectors"])
    elif damage == "writable by others":
        file.chmod(0o666)
    else:
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        file.write_bytes({"empty": b"", "cut": whole[:middle], "flipped": flipped, "text": b"vectors"}[damage])
    np.testing.assert_array_equal(vectors_of(TEXTS), expected)
    assert len(encoded) == 8 and not any(capsys.readouterr())
    vectors_of(TEXTS)
    assert len(encoded) == 8 and file.read_bytes() == whole


def test_without_a_place_to_keep_them_vectors_are_encoded(vectors_of, encoded, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    assert vectors_of(TEXTS).shape == vectors_of(TEXTS).shape == (5, 384)
    assert len(encoded) == 8
    first, second = capsys.readouterr().out.splitlines()
    assert first == second and "minilm: its vectors are not kept" in first and "XDG_CACHE_HOME" in first


def test_a_file_does_not_grow_without_end(vectors_of, encoded, monkeypatch):
    monkeypatch.setattr(vector_cache, "MAX_ROWS", 4)
    vectors_of(TEXTS)
    vectors_of(["one more", *TEXTS[1:3]])
    vectors_of(["one more", *TEXTS[1:3]])
    assert len(encoded) == 5
    vectors_of(TEXTS)
    assert encoded[5:] == ["a red fruit", "waves of the sea"] or encoded[5:] == ["waves of the sea", "a red fruit"]


def test_an_interrupt_loses_the_last_texts_alone(vectors_of, minilm, encoded, monkeypatch):
    monkeypatch.setattr(vector_cache, "BLOCK_TEXTS", 2)
    monkeypatch.setattr(vector_cache, "KEPT_SECONDS", 0)

    def interrupted(texts):
        if encoded:
            raise KeyboardInterrupt
        return minilm.encode(texts)

    with pytest.raises(KeyboardInterrupt):
        encode_cached("minilm", "", TEXTS, interrupted)
    first = encoded[:]
    vectors = vectors_of(TEXTS)
    assert len(first) == 2 and sorted(encoded) == sorted(set(TEXTS))
    np.testing.assert_allclose(vectors, minilm.encode(TEXTS), atol=1e-6)


# Encodes 40 times a text that is new, as its first argument in each of 500 dimensions.
WRITE_OFTEN = """
import sys
import numpy as np
from utils.search.vector_cache import encode_cached
number = int(sys.argv[1])
for i in range(40):
    vectors = encode_cached("numbers", "", [f"{number} {i}"], lambda texts: np.full((1, 500), number, np.float32))
    assert (vectors == number).all()
"""


def test_processes_that_write_at_once_leave_a_whole_file(cache):
    both = [subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, number], cwd=ROOT) for number in "12"]
    assert [process.wait() for process in both] == [0, 0]
    (file,) = cache.iterdir()
    with np.load(file) as arrays:
        assert 0 < len(arrays["keys"]) == len(arrays["vectors"]) <= 80
        assert set(arrays["vectors"].ravel()) <= {1, 2}
