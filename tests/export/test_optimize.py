"""optimize_model.py: what it makes, through the script and through the scripts that open it."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from conftest import fails_with_one_line, run
from transformers import AutoModelForMaskedLM, AutoTokenizer

from utils.device import bfloat16_is_fast
from utils.documents.reading import read_documents
from utils.export.folders import Optimization, optimized_card, write_optimized
from utils.export.pieces import cut_pieces, spelling_pieces
from utils.export.vocabulary import LEAST, measure_use
from utils.files import UNFINISHED, lock_folder
from utils.models import load_masked_lm, resolve_model
from utils.records import Document
from utils.splade import kernels
from utils.splade.encoder import SpladeEncoder
from utils.splade.int8_weights import INT8_FILE, read_int8_weights
from utils.splade.opening import open_encoder

MODEL = ("--model-dir", "splade-tiny")


def texts_of(folder):
    return [document.full_text for document in read_documents(folder).documents]


def test_pruning_changes_no_vector_of_the_documents_and_no_term_of_others_that_stays(pages, tmp_path):
    done = run("optimize_model.py", *MODEL, "--output-dir", tmp_path / "small", "--prune-vocabulary", pages)
    assert done.returncode == 0, done.stderr
    count = int(re.search(r"have (\d[\d,]*) of 30,522 terms", done.stdout)[1].replace(",", ""))
    assert 50 < count < 3000 and "no training queries" in done.stdout
    original, small = (open_encoder(name, "cpu", precision="float32") for name in ("splade-tiny", tmp_path / "small"))
    for vector, other in zip(small.encode(texts_of(pages)), original.encode(texts_of(pages)), strict=True):
        np.testing.assert_array_equal(vector.indices, other.indices)
        np.testing.assert_allclose(vector.values, other.values, rtol=1e-6)
    # Of another text, what stays is what the documents have.
    kept = set(measure_use(original, read_documents(pages).documents, []).terms().tolist())
    assert len(kept) == count
    text = "a telescope shows the moons of Jupiter, and its engine needs oil"
    mine, full = small.encode_query(text), original.encode_query(text)
    assert mine.indices.tolist() == [term for term in full.indices.tolist() if term in kept] != full.indices.tolist()
    assert small.fingerprint == original.fingerprint


def test_a_pruned_folder_gives_the_same_vectors_by_the_plain_formula_of_transformers(pages, tmp_path):
    small = tmp_path / "small"
    assert not run("optimize_model.py", *MODEL, "--output-dir", small, "--prune-vocabulary", pages).returncode
    text = "a telescope shows the moons of Jupiter, and its engine needs oil"
    batch = AutoTokenizer.from_pretrained(small)(text, return_tensors="pt")
    with torch.no_grad():
        weights = torch.log1p(torch.relu(AutoModelForMaskedLM.from_pretrained(small)(**batch).logits)).amax(1)[0]
    vector = open_encoder(small, "cpu", precision="float32").encode([text])[0]
    assert weights.nonzero().flatten().tolist() == vector.indices.tolist()
    np.testing.assert_allclose(weights[vector.indices], vector.values, rtol=1e-4)


def test_the_heaviest_terms_stay_and_those_of_queries_alone_go_first(tiny):
    use = measure_use(tiny, [Document(id="1", text="the engine burns diesel fuel")], ["where is the lighthouse"])
    document, query = tiny.encode(["the engine burns diesel fuel"])[0], tiny.encode_query("where is the lighthouse")
    alone = set(query.indices.tolist()) - set(document.indices.tolist())
    assert alone and set(use.terms().tolist()) == alone | set(document.indices.tolist())
    assert all(use.weights[list(alone)] == LEAST)
    assert use.terms(5).tolist() == document.heaviest(5).indices.tolist()
    assert (use.passages, use.queries, use.pieces.any()) == (1, 1, False)


def test_training_queries_keep_their_terms(pages, tmp_path):
    train = tmp_path / "train.json"
    train.write_text(json.dumps([{"query": "where is the lighthouse", "positive_document": "a"}]))
    flags = ("--prune-vocabulary", pages, "--train-file", train)
    assert not run("optimize_model.py", *MODEL, "--output-dir", tmp_path / "small", *flags).returncode
    small, original = open_encoder(tmp_path / "small", "cpu"), open_encoder("splade-tiny", "cpu")
    query = "where is the lighthouse"
    assert small.encode_query(query).indices.tolist() == original.encode_query(query).indices.tolist()


def test_weights_in_8_bits_take_a_quarter_and_stay_close(pages, tmp_path):
    done = run("optimize_model.py", *MODEL, "--output-dir", tmp_path / "small", "--quantize", "int8")
    assert done.returncode == 0, done.stderr
    size = sum(file.stat().st_size for file in (tmp_path / "small").glob("*.safetensors"))
    weights = read_int8_weights(tmp_path / "small")
    exact = dict(load_masked_lm("splade-tiny")[0].named_parameters())
    assert size < 0.28 * sum(weight.nbytes for weight in exact.values()) and weights.keys() == exact.keys()
    for name, weight in exact.items():
        step = weight.detach().abs().amax(-1, keepdim=True) / 127 if weight.dim() == 2 else 0
        assert ((weights[name] - weight).abs() <= 0.501 * step).all(), name
    original = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32")
    texts = texts_of(pages)
    for precision in ("auto", "float32"):
        small = open_encoder(tmp_path / "small", "cpu", precision=precision)
        assert small._in_int8 == (precision == "auto" and kernels.available())
        for vector, other in zip(small.encode(texts), original.encode(texts), strict=True):
            mine, theirs = np.zeros(30522), np.zeros(30522)
            mine[vector.indices], theirs[other.indices] = vector.values, other.values
            assert 0 < np.abs(mine - theirs).sum() < 0.1 * theirs.sum()


def test_inputs_that_no_document_has_are_cut_from_tokenizer_and_weights(pages, tmp_path):
    flags = ("--prune-vocabulary", pages, "--quantize", "int8")
    for name, more in (("terms", ()), ("inputs", ("--prune-inputs",))):
        assert not run("optimize_model.py", *MODEL, "--output-dir", tmp_path / name, *flags, *more).returncode
    terms, inputs = (open_encoder(tmp_path / name, "cpu") for name in ("terms", "inputs"))
    for vector, other in zip(inputs.encode(texts_of(pages)), terms.encode(texts_of(pages)), strict=True):
        np.testing.assert_array_equal(vector.indices, other.indices)
        np.testing.assert_allclose(vector.values, other.values, rtol=1e-5)
    sizes = [(tmp_path / name / INT8_FILE).stat().st_size for name in ("inputs", "terms")]
    assert sizes[0] < 0.4 * sizes[1]
    words = inputs.tokenizer.tokenize("telescope engine")
    assert words[-1] == "engine" and len(words) > 3 and "[UNK]" not in words
    assert inputs.decode_terms(terms.encode(["engine"])[0].indices) == terms.decode_terms(
        terms.encode(["engine"])[0].indices
    )


def test_tokens_that_training_queries_alone_have_stay(pages, tiny):
    documents, vocabulary = read_documents(pages).documents, tiny.tokenizer.get_vocab()
    for queries, stays in (([], False), (["a telescope"], True)):
        assert measure_use(tiny, documents, queries, inputs=True).pieces[vocabulary["telescope"]] == stays


def test_every_word_can_be_spelled_with_the_pieces_that_stay():
    tokenizer = load_masked_lm("splade-tiny")[1]
    cut = cut_pieces(tokenizer, spelling_pieces(tokenizer))
    assert cut("lift")["input_ids"] != tokenizer("lift")["input_ids"]
    assert cut.tokenize("lift 42") == ["l", "##i", "##f", "##t", "4", "##2"]
    assert cut.convert_tokens_to_ids("##t") == tokenizer.convert_tokens_to_ids("##t")


def test_all_scripts_open_what_it_makes_and_an_index_of_the_original_stays_good(pages, beir, tmp_path):
    small, index = tmp_path / "small", tmp_path / "index"
    made = run("embedder.py", *MODEL, "--input-file", pages, "--index-dir", index)
    assert made.returncode == 0, made.stderr
    flags = ("--prune-vocabulary", pages, "--quantize", "int8", "--export", "onnx")
    assert not run("optimize_model.py", *MODEL, "--output-dir", small, *flags).returncode
    found = run("test_queries.py", "--model-dir", small, "--index-dir", index, "--query", "clutch care", "--top-k", 1)
    assert found.returncode == 0 and "clutch" in found.stdout, found.stderr
    evaluated = run("test_evaluate.py", *MODEL, "--test-file", beir, "--compare", small)
    assert evaluated.returncode == 0 and str(small) in evaluated.stdout, evaluated.stderr
    again = run("embedder.py", "--model-dir", small, "--input-file", pages, "--index-dir", index)
    assert again.returncode == 0 and "12 unchanged" in again.stdout + again.stderr, again.stdout + again.stderr


@pytest.mark.slow
def test_measuring_shows_each_step_and_its_quality(beir, tmp_path):
    flags = ("--prune-vocabulary", beir, "--quantize", "int8", "--measure", "--test-file", beir, "--threads", 1)
    done = run("optimize_model.py", *MODEL, "--output-dir", tmp_path / "small", *flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "small" / "optimization.json").read_text())["variants"]
    names = [row["model"] for row in rows]
    originals = [name for name in names if name.startswith("original")]
    fast = bfloat16_is_fast(torch.device("cpu"))
    assert originals == names[: len(originals)] == ["original, float32", *(["original, bfloat16"] if fast else [])]
    assert {"pruned", "int8", "not calibrated", "50% of the terms"} <= set(names)
    by_name = dict(zip(names, rows))
    assert by_name["pruned"]["nDCG@10"] == by_name["original, float32"]["nDCG@10"] > 0
    assert by_name["int8"]["disk_MB"] < 0.35 * by_name["original, float32"]["disk_MB"]
    assert all(row["documents/s"] > 0 and row["query_ms"] > 0 and row["memory_MB"] > 0 for row in rows)
    assert (tmp_path / "small" / "optimization.png").read_bytes().startswith(b"\x89PNG")
    assert all(name in done.stdout for name in names)


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ((), ("nothing to do", "--quantize")),
        (("--quantize", "float16"), ("float16 is for graphs", "--export")),
        (("--quantize", "int8", "--keep-terms", "9"), ("--prune-vocabulary",)),
        (("--quantize", "int8", "--top-terms", "9"), ("--export",)),
        (("--quantize", "int8", "--measure"), ("--measure needs documents",)),
        (("--prune-vocabulary", "DOCS", "--prune-inputs"), ("--prune-inputs", "--quantize int8")),
        (("--prune-vocabulary", "nowhere"), ("nowhere",)),
        (("--export", "onnx", "--top-terms", "30523"), ("30,522 terms", "--top-terms")),
        (("--quantize", "int4"), ("invalid choice",)),
    ],
)
def test_wrong_arguments_are_one_line(pages, tmp_path, flags, parts):
    flags = [pages if flag == "DOCS" else flag for flag in flags]
    fails_with_one_line(run("optimize_model.py", *MODEL, "--output-dir", tmp_path / "new", *flags), *parts)
    assert not (tmp_path / "new" / "config.json").exists()


def test_an_optimized_folder_is_neither_optimized_again_nor_trained(tmp_path):
    write_optimized("splade-tiny", Optimization(precision="int8"), tmp_path / "small", {})
    flags = ("--model-dir", tmp_path / "small", "--output-dir", tmp_path / "new", "--export", "onnx")
    fails_with_one_line(run("optimize_model.py", *flags), "optimized already (int8)", "splade-tiny")
    train = tmp_path / "train.json"
    train.write_text(json.dumps([{"query": "a", "positive_document": "b", "negative_documents": ["c"]}] * 4))
    flags = ("--model-name", tmp_path / "small", "--train-file", train, "--output-dir", tmp_path / "tuned")
    fails_with_one_line(run("train_splade.py", *flags), "optimized already (int8)", "splade-tiny")


def test_tokens_are_not_cut_from_a_model_whose_queries_are_their_tokens(pages, tmp_path):
    model, tokenizer = load_masked_lm("splade-tiny")
    SpladeEncoder(model, tokenizer, query_weights=torch.ones(30522)).save_pretrained(tmp_path / "idf")
    flags = ("--output-dir", tmp_path / "new", "--prune-vocabulary", pages, "--prune-inputs", "--quantize", "int8")
    fails_with_one_line(run("optimize_model.py", "--model-dir", tmp_path / "idf", *flags), "leave --prune-inputs out")


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path):
    with lock_folder(tmp_path):
        done = run("optimize_model.py", *MODEL, "--output-dir", tmp_path, "--quantize", "int8")
    fails_with_one_line(done, "another run is at work")
    assert not list(tmp_path.glob("*.safetensors"))


def test_figures_and_card_of_an_earlier_model_go_with_it(tmp_path):
    (tmp_path / "optimization.json").write_text("{}")
    (tmp_path / "README.md").write_text("an earlier card")
    done = Optimization(terms=np.arange(2000, 3000), precision="int8")
    write_optimized("splade-tiny", done, tmp_path, {})
    assert not (tmp_path / "optimization.json").exists()
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nbase_model: splade-tiny\n") and "earlier" not in card
    assert "- 1,000 of 30,522 terms are computed\n- weights are in int8\n" in card


def test_the_card_of_a_graph_says_what_it_gives():
    card = optimized_card("splade-tiny", Optimization(pieces=np.arange(500), graph="onnx", top_terms=256), 30522)
    assert "- 500 of 30,522 tokens are read\n- network and head are one graph, for onnx\n" in card
    assert "- of a text, the 256 heaviest terms are given\n" in card and "weights are in" not in card


def test_files_that_are_no_model_are_left_alone(tmp_path):
    (tmp_path / "tokenizer.json").write_text("mine")
    flags = (*MODEL, "--output-dir", tmp_path, "--quantize", "int8")
    fails_with_one_line(run("optimize_model.py", *flags), str(tmp_path), "is no model", "--output-dir")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / f"{UNFINISHED}of-a-kill").mkdir()
    for _ in range(2):  # into a folder with nothing else, and over the model that is there then
        assert not run("optimize_model.py", *flags).returncode


def test_a_model_is_not_written_over_itself(tmp_path):
    flags = ("--output-dir", resolve_model("splade-tiny"), "--quantize", "int8")
    fails_with_one_line(run("optimize_model.py", *MODEL, *flags), "is the model itself")


@pytest.mark.parametrize(
    ("library", "flags", "hint"),
    [
        ("onnxscript", ("--export", "onnx"), "pip install onnx"),
        ("openvino", ("--export", "openvino"), "pip install openvino"),
    ],
)
def test_a_missing_library_is_named_with_its_command(tmp_path, monkeypatch, library, flags, hint):
    monkeypatch.setitem(sys.modules, library, None)
    flags = ("--output-dir", tmp_path / "new", *flags, "--prune-vocabulary", "nowhere")  # said before long work begins
    fails_with_one_line(run("optimize_model.py", *MODEL, *flags), hint)
    assert not list((tmp_path / "new").glob("*"))


def test_a_broken_file_of_weights_is_one_line(tmp_path):
    write_optimized("splade-tiny", Optimization(precision="int8"), tmp_path / "small", {})
    file = tmp_path / "small" / INT8_FILE
    file.write_bytes(file.read_bytes()[:1000])
    fails_with_one_line(run("embedder.py", "--model-dir", tmp_path / "small", "--text", "a"), "broken or incomplete")
