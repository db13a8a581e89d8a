"""Model folders between this toolkit and sentence-transformers, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fails_with_one_line, run
from safetensors.torch import save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import (
    MLMTransformer,
    Router,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
)
from transformers import AutoTokenizer

from utils.models import load_masked_lm, resolve_model
from utils.splade.encoder import SpladeEncoder
from utils.splade.projection import cut_terms

TEXTS = ["how does a jet engine work", "boundary layer", "the wing stalls at a high angle of attack " * 3]
LIMIT = 12  # tokens, fewer than the last text has


def transformer() -> MLMTransformer:
    return MLMTransformer(resolve_model("splade-tiny"), max_seq_length=LIMIT)


def idf(tokenizer) -> SparseStaticEmbedding:
    return SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(0)))


def doc_only() -> Router:
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("splade-tiny"), model_max_length=LIMIT + 3)
    return Router.for_query_document([idf(tokenizer)], [transformer(), SpladePooling()])


KINDS = {
    "max": lambda: [transformer(), SpladePooling("max", "relu")],
    "double log": lambda: [
        Transformer(resolve_model("splade-tiny"), transformer_task="fill-mask", max_seq_length=LIMIT),
        SpladePooling("max", "log1p_relu"),
    ],
    "doc-only": lambda: [doc_only()],
    "sum": lambda: [transformer(), SpladePooling("sum", "relu")],
    "sum, double log": lambda: [transformer(), SpladePooling("sum", "log1p_relu")],
    "heaviest terms": lambda: [transformer(), SpladePooling()],
    "heaviest terms, doc-only": lambda: [doc_only()],
}
OPTIONS = {kind: {"max_active_dims": 7} for kind in KINDS if "heaviest" in kind}


def assert_same_vectors(ours: SpladeEncoder, peer: SparseEncoder) -> None:
    documents = peer.encode_document(TEXTS, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
    queries = peer.encode_query(TEXTS, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
    for theirs, vector in zip(documents, ours.encode(TEXTS), strict=True):
        np.testing.assert_allclose(theirs[vector.indices], vector.values, rtol=1e-4, atol=1e-4)
        assert theirs.sum() == pytest.approx(vector.values.sum(), rel=1e-4)
    for theirs, text in zip(queries, TEXTS, strict=True):
        vector = ours.encode_query(text)
        np.testing.assert_allclose(theirs[vector.indices], vector.values, rtol=1e-4, atol=1e-4)
        assert theirs.sum() == pytest.approx(vector.values.sum(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_sentence_transformers_gives_its_vectors_and_is_written_back_as_one(kind, tmp_path):
    peer = SparseEncoder(modules=KINDS[kind](), device="cpu", **OPTIONS.get(kind, {}))
    peer.save_pretrained(str(tmp_path / "theirs"))
    ours = SpladeEncoder.from_pretrained(tmp_path / "theirs", "cpu", precision="float32")
    assert ours.max_length == LIMIT
    assert_same_vectors(ours, peer)
    with torch.no_grad():
        batch = ours.pad(ours.tokenize(TEXTS))
        for row, vector in zip(ours(**batch), ours.encode(TEXTS), strict=True):
            torch.testing.assert_close(row[vector.indices.tolist()], torch.tensor(vector.values), rtol=1e-4, atol=1e-4)

    ours.save_pretrained(tmp_path / "ours")
    again = SpladeEncoder.from_pretrained(tmp_path / "ours", "cpu", precision="float32")
    assert again.to_config().model_dump(exclude={"base_model"}) == ours.to_config().model_dump(exclude={"base_model"})
    assert_same_vectors(again, SparseEncoder(str(tmp_path / "ours"), device="cpu"))


WEIGHTS = {"jet": 3.5, "wing": 2.25, "layer": 0.5, "[PAD]": 1.0, "the": 0.0}  # of query tokens; others have 0


@pytest.mark.parametrize("place", ["query", "model", "elsewhere"])
def test_query_weights_are_read_from_the_json_file_that_a_module_names(place, tmp_path, monkeypatch):
    peer = SparseEncoder(modules=[doc_only()], device="cpu")
    peer.save_pretrained(str(tmp_path / "theirs"))
    folder = next((tmp_path / "theirs").glob("query_0_*"))
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text('{"path": "idf.json"}')
    places = {"query": folder, "model": tmp_path / "theirs", "elsewhere": tmp_path}
    (places[place] / "idf.json").write_text(json.dumps(WEIGHTS))
    monkeypatch.chdir(places[place])  # where sentence-transformers looks for it
    ours = SpladeEncoder.from_pretrained(tmp_path / "theirs", "cpu", precision="float32")
    assert_same_vectors(ours, SparseEncoder(str(tmp_path / "theirs"), device="cpu"))
    ours.save_pretrained(tmp_path / "ours")
    assert_same_vectors(ours, SparseEncoder(str(tmp_path / "ours"), device="cpu"))


def opensearch(folder: Path) -> Path:
    """Write a folder as OpenSearch's doc-only models had before they named modules; return its query weights."""
    model, tokenizer = load_masked_lm("splade-tiny")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "idf.json").write_text(json.dumps(WEIGHTS))
    return folder / "idf.json"


def test_a_folder_with_nothing_but_idf_json_looks_queries_up_in_it(tmp_path):
    opensearch(tmp_path)
    ours = SpladeEncoder.from_pretrained(tmp_path, "cpu", precision="float32")
    words = ["wing", "jet"]
    query = ours.encode_query("The Jet's wing, the wing")
    assert dict(zip(ours.decode_terms(query.indices), query.values.tolist())) == {word: WEIGHTS[word] for word in words}
    exact = SpladeEncoder(*load_masked_lm("splade-tiny"), precision="float32")
    for vector, expected in zip(ours.encode(TEXTS), exact.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(vector.indices, expected.indices)
        np.testing.assert_allclose(vector.values, expected.values, rtol=1e-5)
    batch = ours.pad(ours.tokenize_queries(["a jet"]))
    assert ours(**ours.pad(ours.tokenize(["a"])), query_ids=batch["input_ids"])[1].sum() == WEIGHTS["jet"]


IDF = {
    "not JSON": ("{", "idf.json: not valid JSON"),
    "a list": ("[1]", "idf.json: "),
    "a word as a weight": ('{"jet": "much"}', "idf.json: field 'jet'"),
    "no finite number": ('{"jet": NaN}', "idf.json: field 'jet'"),
    "a negative weight": ('{"jet": -1}', "some weights in idf.json are negative"),
    "no token of the model": ('{"turbofans": 1}', "idf.json: the model's vocabulary has no token 'turbofans'"),
}


@pytest.mark.parametrize(("content", "message"), IDF.values(), ids=IDF)
def test_query_weights_that_make_no_sense_are_named(content, message, tmp_path):
    opensearch(tmp_path).write_text(content)
    fails_with_one_line(run("embedder.py", "--model-dir", tmp_path, "--text", "a"), message)


def test_a_file_of_query_weights_that_is_missing_is_named(tmp_path):
    SparseEncoder(modules=[doc_only()], device="cpu").save_pretrained(str(tmp_path))
    (next(tmp_path.glob("query_0_*")) / "config.json").write_text('{"path": "weights/idf.json"}')
    fails_with_one_line(run("embedder.py", "--model-dir", tmp_path, "--text", "a"), "are missing: weights/idf.json")


def test_sums_leave_out_the_terms_that_were_cut():
    model, tokenizer = load_masked_lm("splade-tiny")
    cut_terms(model, torch.arange(1000, 20_000))
    encoder = SpladeEncoder(model, tokenizer, precision="float32")
    encoder.pooling = "sum"
    whole = encoder.encode(TEXTS)
    encoder.freeze()
    for vector, expected in zip(encoder.encode(TEXTS), whole, strict=True):
        np.testing.assert_array_equal(vector.indices, expected.indices)
        np.testing.assert_allclose(vector.values, expected.values, rtol=1e-5, atol=1e-6)
        assert vector.indices[0] >= 1000 and vector.indices[-1] < 20_000


def test_vectors_of_another_pooling_are_not_compared(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "splade_config.json").read_text())
    (tmp_path / "splade_config.json").write_text(json.dumps({**config, "pooling": "sum"}))
    assert SpladeEncoder.from_pretrained(tmp_path, "cpu").fingerprint != tiny.fingerprint


def test_a_model_with_sum_pooling_is_not_trained(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "splade_config.json").write_text('{"pooling": "sum"}')
    (tmp_path / "data.json").write_text(json.dumps([{"query": "a b", "positive_document": "a b c"}] * 2))
    files = "--train-file", tmp_path / "data.json", "--output-dir", tmp_path / "out"
    done = run("train_splade.py", "--model-name", tmp_path / "model", *files)
    fails_with_one_line(done, "its pooling is sum; only max is trained")
    assert not (tmp_path / "out").exists()


def test_sentence_transformers_takes_the_limits_from_the_folder(tmp_path):
    model = SpladeEncoder(*load_masked_lm("splade-tiny"), max_length=9, query_max_length=5, precision="float32")
    model.query_weights = torch.nn.Parameter(torch.linspace(-1, 2, model.vocabulary_size))
    model.save_pretrained(tmp_path)
    peer = SparseEncoder(str(tmp_path), device="cpu")
    query = peer.encode_query(TEXTS[2], convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
    vector = model.encode_query(TEXTS[2])
    np.testing.assert_allclose(query[vector.indices], vector.values, rtol=1e-5)
    assert query.min() == 0 and query.sum() == pytest.approx(vector.values.sum())
    again = SpladeEncoder.from_pretrained(tmp_path, "cpu", max_length=40)
    assert (again.max_length, again.query_max_length) == (40, 5)


def csr() -> list:
    return [transformer(), SpladePooling(), SparseAutoEncoder(30522, 64, 8)]


def two_encoders() -> list:
    return [Router.for_query_document([transformer(), SpladePooling()], [transformer(), SpladePooling()])]


def negative_weights() -> list:
    router = doc_only()
    with torch.no_grad():
        router.sub_modules["query"][0].weight[2000] = -1
    return [router]


REFUSED = {
    "documents pass MLMTransformer, SpladePooling, SparseAutoEncoder": (csr, {}),
    "queries pass MLMTransformer, SpladePooling of their own": (two_encoders, {}),
    "some of its query weights are negative": (negative_weights, {}),
    "it puts 'find: ' before texts": (KINDS["max"], {"prompts": {"query": "find: "}}),
    "it compares by cosine": (KINDS["max"], {"similarity_fn_name": "cosine"}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_model_that_encodes_in_another_way_is_refused_by_name(reason, tmp_path):
    modules, options = REFUSED[reason]
    SparseEncoder(modules=modules(), device="cpu", **options).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=reason):
        SpladeEncoder.from_pretrained(tmp_path, "cpu")


FILES = {
    "mean pooling": ("splade_config.json", {"pooling": "mean"}, "field 'pooling'"),
    "an unknown pooling": ("pooling/config.json", {"pooling_strategy": "mean"}, "its pooling is mean"),
    "a number of terms below 1": (
        "config_sentence_transformers.json",
        {"max_active_dims": -3},
        "field 'max_active_dims'",
    ),
    "a list": ("splade_config.json", [], "splade_config.json: is not an object"),
    "a limit in words": ("splade_config.json", {"max_length": "many"}, "field 'max_length'"),
    "missing weights": ("splade_config.json", {"query_encoder": "idf"}, "query_idf/model.safetensors"),
    "an unknown activation": ("pooling/config.json", {"activation_function": "gelu"}, "its activation is gelu"),
    "broken modules": ("modules.json", {}, "its modules.json is not as"),
}


@pytest.mark.parametrize(("file", "content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_makes_no_sense_is_named(file, content, message, tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    if file != "splade_config.json":
        (tmp_path / "splade_config.json").unlink()
    (tmp_path / file).write_text(json.dumps(content))
    fails_with_one_line(run("embedder.py", "--model-dir", tmp_path, "--text", "a"), message)


@pytest.mark.parametrize(("weights", "message"), [(b"1234", "broken or incomplete"), (10, "do not fit its vocabulary")])
def test_query_weights_that_do_not_fit_are_named(weights, message, tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    (tmp_path / "splade_config.json").write_text('{"query_encoder": "idf"}')
    (tmp_path / "query_idf").mkdir()
    if isinstance(weights, bytes):
        (tmp_path / "query_idf" / "model.safetensors").write_bytes(weights)
    else:
        save_file({"weight": torch.ones(weights)}, tmp_path / "query_idf" / "model.safetensors")
    fails_with_one_line(run("embedder.py", "--model-dir", tmp_path, "--text", "a", "--queries"), message)
