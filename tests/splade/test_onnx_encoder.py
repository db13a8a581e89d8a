"""Graphs with the head inside, and the encoder that opens them."""

import json
import random
import string
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_encoder import FAMILIES, dense, family_model

from utils.export.folders import Optimization, write_optimized
from utils.models import resolve_model
from utils.splade.encoder import SpladeEncoder
from utils.splade.opening import open_encoder

TERMS = 64  # of the small models


def letters(count: int) -> list[str]:
    """Texts of one to 35 letters."""
    rng = random.Random(0)
    return [" ".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 35))) for _ in range(count)]


@pytest.fixture
def bert(tmp_path):
    """The folder of a small BERT."""
    SpladeEncoder(*family_model("Bert")).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_gives_the_vectors_of_torch_on_a_thousand_documents(family, tmp_path):
    SpladeEncoder(*family_model(family)).save_pretrained(tmp_path / "model")
    write_optimized(str(tmp_path / "model"), Optimization(graph="onnx"), tmp_path / "graph", {})
    texts = letters(1000)
    expected = dense(SpladeEncoder.from_pretrained(tmp_path / "model", "cpu", precision="float32").encode(texts), TERMS)
    graph = open_encoder(tmp_path / "graph", "cpu")
    assert (expected > 0).sum() > 1000
    torch.testing.assert_close(dense(graph.encode(texts), TERMS), expected, rtol=0, atol=1e-4)
    assert graph.encode_query("").indices.size == 0 and graph.encode([]) == []


def test_no_tensor_in_a_graph_is_as_large_as_batch_times_tokens_times_vocabulary(tmp_path):
    write_optimized("splade-tiny", Optimization(graph="onnx"), tmp_path, {})
    graph = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "model.onnx")).graph
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    wide = [shape for shape in sizes.values() if len(shape) == 3 and shape[-1] > 2048]
    assert not wide and sum(len(shape) == 3 and shape[-1] == 2048 for shape in sizes.values()) >= 14  # the tiles


@pytest.mark.parametrize(
    ("graph", "terms"), [("onnx", None), ("onnx", np.arange(5, 64, 2)), ("openvino", np.arange(5, 64, 2))]
)
def test_the_heaviest_terms_of_a_graph_are_those_of_the_model(bert, tmp_path, terms, graph):
    write_optimized(str(bert), Optimization(terms, graph=graph, top_terms=5), tmp_path / "top", {})
    write_optimized(str(bert), Optimization(terms, graph=graph), tmp_path / "all", {})
    texts = letters(50)
    full = open_encoder(tmp_path / "all", "cpu").encode(texts)
    for vector, other in zip(open_encoder(tmp_path / "top", "cpu").encode(texts), full):
        assert len(vector.indices) <= 5 and len(other.indices) > 5
        kept = other.heaviest(5)
        assert vector.indices.tolist() == kept.indices.tolist()
        np.testing.assert_allclose(vector.values, kept.values, rtol=1e-5)
        assert terms is None or set(other.indices.tolist()) <= set(terms.tolist())


@pytest.mark.parametrize("activation", ["log1p_relu", "log1p_log1p_relu"])
def test_a_graph_has_the_activation_of_its_model(tmp_path, activation):
    encoder = SpladeEncoder(*family_model("Bert"), precision="float32")
    encoder.activation = activation
    encoder.save_pretrained(tmp_path / "model")
    write_optimized(str(tmp_path / "model"), Optimization(graph="onnx"), tmp_path / "graph", {})
    texts = letters(20)
    ours, graph = (dense(e.encode(texts), TERMS) for e in (encoder, open_encoder(tmp_path / "graph", "cpu")))
    torch.testing.assert_close(graph, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("precision", "error"), [("float16", 0.01), ("int8", 0.045)])
def test_smaller_graphs_are_close(tmp_path, precision, error):
    write_optimized("splade-tiny", Optimization(precision=precision, graph="onnx"), tmp_path / precision, {})
    texts = ["the engine burns diesel fuel", "worn tyres lose grip on wet roads", "check the oil level " * 40]
    models = open_encoder(tmp_path / precision, "cpu"), open_encoder("splade-tiny", "cpu", precision="float32")
    small, exact = (dense(model.encode(texts), 30522) for model in models)
    difference = (small - exact).abs().sum() / exact.abs().sum()
    assert 0 < difference < error
    size = Path(resolve_model("splade-tiny"), "model.safetensors").stat().st_size
    assert (tmp_path / precision / "model.onnx").stat().st_size < 0.55 * size


def test_a_graph_of_another_pooling_is_refused(tmp_path):
    encoder = SpladeEncoder(*family_model("Bert"))
    encoder.pooling = "sum"
    encoder.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="its pooling is sum"):
        write_optimized(str(tmp_path / "model"), Optimization(graph="onnx"), tmp_path / "graph", {})


def test_a_graph_keeps_the_query_weights_of_its_model(tmp_path):
    model, tokenizer = family_model("Bert")
    weights = torch.arange(TERMS) / TERMS
    SpladeEncoder(model, tokenizer, query_weights=weights).save_pretrained(tmp_path / "model")
    write_optimized(str(tmp_path / "model"), Optimization(graph="onnx"), tmp_path / "graph", {})
    vector = open_encoder(tmp_path / "graph", "cpu").encode_query("a b")
    assert vector.indices.tolist() == [5, 6]
    np.testing.assert_allclose(vector.values, weights[5:7])


def test_what_a_graph_cannot_do_is_said(bert, tmp_path):
    write_optimized(str(bert), Optimization(graph="onnx"), tmp_path / "graph", {})
    with pytest.raises(ValueError, match="has a precision already"):
        open_encoder(tmp_path / "graph", "cpu", precision="bfloat16")
    with pytest.raises(ValueError, match="no device 'cuda' here"):
        open_encoder(tmp_path / "graph", "cuda")
    with pytest.raises(ValueError, match="only encodes; name its original"):
        SpladeEncoder.from_pretrained(tmp_path / "graph", "cpu")
    with pytest.raises(ValueError, match="is on cpu; open it anew"):
        open_encoder(tmp_path / "graph", "cpu").to("cuda")
    (tmp_path / "graph" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"cannot load model .* as a graph of onnx"):
        open_encoder(tmp_path / "graph", "cpu")
    (tmp_path / "graph" / "model.onnx").unlink()
    with pytest.raises(OSError, match=r"model\.onnx"):
        open_encoder(tmp_path / "graph", "cpu")


def test_a_graph_of_a_model_that_cannot_be_exported_is_refused(bert, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("an operator is missing")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ValueError, match="BertForMaskedLM cannot be exported as a graph: an operator is missing"):
        write_optimized(str(bert), Optimization(graph="onnx"), tmp_path / "graph", {})
    assert not list((tmp_path / "graph").iterdir())


def test_an_index_of_the_original_is_good_for_the_graph(bert, tmp_path):
    write_optimized(str(bert), Optimization(graph="onnx"), tmp_path / "graph", {})
    original, graph = open_encoder(bert, "cpu"), open_encoder(tmp_path / "graph", "cpu")
    assert graph.fingerprint == original.fingerprint != ""
    assert graph.vocabulary_size == original.vocabulary_size == TERMS
    config = json.loads((tmp_path / "graph" / "splade_config.json").read_text())
    assert config["weights"] == "onnx" and config["optimization"]["summary"] == "onnx"


def test_a_graph_cuts_texts_to_the_limit_that_is_asked_for(bert, tmp_path):
    write_optimized(str(bert), Optimization(graph="onnx"), tmp_path / "graph", {})
    graph, exact = open_encoder(tmp_path / "graph", "cpu", max_length=5), open_encoder(bert, "cpu", precision="float32")
    assert graph.max_length == 5
    torch.testing.assert_close(
        dense(graph.encode(["a b c d e f"]), TERMS), dense(exact.encode(["a b c"]), TERMS), rtol=1e-4, atol=1e-4
    )


def test_a_graph_on_cuda_takes_no_streams_of_torch(bert, tmp_path):
    write_optimized(str(bert), Optimization(graph="onnx"), tmp_path / "graph", {})
    graph = open_encoder(tmp_path / "graph", "cpu")
    texts = letters(5)
    expected = dense(graph.encode(texts), TERMS)
    graph._device = torch.device("cuda")  # as with onnxruntime-gpu, which needs no torch with CUDA
    torch.testing.assert_close(dense(graph.encode(texts, batch_size=2), TERMS), expected)
