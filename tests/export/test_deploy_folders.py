"""Model folders, pruned ones too, as sentence-transformers opens them and as text-embeddings-inference reads them."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from sentence_transformers import SparseEncoder
from transformers import (
    AutoModelForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from utils.export.folders import Optimization, write_optimized
from utils.models import load_masked_lm
from utils.splade.encoder import SpladeEncoder
from utils.splade.opening import open_encoder

TEXTS = ["boundary layer", "how does a jet engine work", "the wing stalls at a high angle of attack " * 3]
PRUNED = np.arange(999, 30522, 3)
SIZES = {"vocab_size": 30522, "max_position_embeddings": 64}
KINDS = {
    "distilbert": (
        DistilBertForMaskedLM,
        DistilBertConfig(**SIZES, dim=32, n_layers=1, n_heads=2, hidden_dim=32),
        {
            "vocab_transform.weight": [32, 32],
            "vocab_transform.bias": [32],
            "vocab_layer_norm.weight": [32],
            "vocab_layer_norm.bias": [32],
            "vocab_projector.bias": [30522],
            "distilbert.embeddings.word_embeddings.weight": [30522, 32],
        },
    ),
    "roberta": (
        RobertaForMaskedLM,
        RobertaConfig(**SIZES, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
        {
            "lm_head.dense.weight": [32, 32],
            "lm_head.dense.bias": [32],
            "lm_head.layer_norm.weight": [32],
            "lm_head.layer_norm.bias": [32],
            "lm_head.bias": [30522],
            "roberta.embeddings.word_embeddings.weight": [30522, 32],
        },
    ),
}


@pytest.fixture(scope="module", params=["as it comes", "pruned"])
def folder(request, tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("folder")
    if request.param == "pruned":
        write_optimized("splade-tiny", Optimization(terms=PRUNED), folder, {})
    else:
        tiny.save_pretrained(folder)
    return folder


def dense(vectors, size=30522):
    rows = np.zeros((len(vectors), size), np.float32)
    for row, vector in zip(rows, vectors):
        row[vector.indices] = vector.values
    return rows


def shapes(folder):
    with safe_open(folder / "model.safetensors", "np") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no dict, and cannot be iterated over
        assert {piece.get_dtype() for piece in slices.values()} == {"F32"}
        return {name: piece.get_shape() for name, piece in slices.items()}


def test_sentence_transformers_gives_our_vectors(folder):
    ours = open_encoder(folder, "cpu", precision="float32")
    peer = SparseEncoder(str(folder), device="cpu")
    theirs = peer.encode_document(TEXTS, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
    np.testing.assert_allclose(theirs, dense(ours.encode(TEXTS)), atol=1e-4)
    theirs = peer.encode_query(TEXTS, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
    np.testing.assert_allclose(theirs, dense([ours.encode_query(text) for text in TEXTS]), atol=1e-4)


def test_text_embeddings_inference_finds_the_tensors_that_it_loads(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"] and config["model_type"] == "bert"
    assert config.get("position_embedding_type", "absolute") == "absolute"
    found, head = shapes(folder), "cls.predictions"
    assert found["bert.embeddings.word_embeddings.weight"] == [30522, 128]
    assert found[f"{head}.bias"] == [30522]
    assert found[f"{head}.transform.dense.weight"] == [128, 128] and found[f"{head}.transform.dense.bias"] == [128]
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        names = {f"{head}.transform.LayerNorm.{name}" for name in (old, new)} & found.keys()
        assert [found[name] for name in names] == [[128]]


@pytest.mark.parametrize("kind", KINDS)
def test_text_embeddings_inference_finds_the_tensors_of_other_heads(kind, tmp_path, monkeypatch):
    build, config, expected = KINDS[kind]
    folder = tmp_path / "fine_tuned_splade"
    tokenizer = load_masked_lm("splade-tiny")[1]
    SpladeEncoder(build(config), tokenizer, max_length=32, precision="float32").save_pretrained(folder)
    found = shapes(folder)
    assert {name: found.get(name) for name in expected} == expected
    if kind != "roberta":
        return
    assert "lm_head.decoder.weight" not in found
    before = dense(open_encoder(folder, "cpu", precision="float32").encode(TEXTS))
    page = (ROOT / "docs" / "deploy" / "text-embeddings-inference.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], {})
    assert shapes(folder)["lm_head.decoder.weight"] == [30522, 32]
    after = dense(open_encoder(folder, "cpu", precision="float32").encode(TEXTS))
    assert before.any()
    np.testing.assert_array_equal(after, before)


def test_its_arithmetic_gives_our_vectors_for_a_text_alone_and_adds_terms_by_padding(folder):
    ours = open_encoder(folder, "cpu", precision="float32")
    model, exact = AutoModelForMaskedLM.from_pretrained(folder).eval(), dense(ours.encode(TEXTS))
    rows = ours.tokenize(TEXTS)
    longest = max(map(len, rows))
    with torch.no_grad():
        for row, own in zip(rows, exact):
            alone = model(torch.tensor([row])).logits.relu().log1p().amax(1)[0]
            np.testing.assert_allclose(alone, own, atol=1e-4)
        # Their padding has the id 0 at position 0, takes no part in attention, and part in the maximum.
        pads = [longest - len(row) for row in rows]
        ids = torch.tensor([row + [0] * pad for row, pad in zip(rows, pads)])
        positions = torch.tensor([[*range(len(row)), *[0] * pad] for row, pad in zip(rows, pads)])
        mask = torch.tensor([[1] * len(row) + [0] * pad for row, pad in zip(rows, pads)])
        logits = model(ids, attention_mask=mask, position_ids=positions).logits
    padded = logits.relu().log1p().amax(1).numpy()
    assert (padded > exact - 1e-4).all()
    assert (padded[0] > exact[0] + 1e-3).any()  # the shortest text's
