"""Tests of linear layers and whole transformer layers in int8."""

import copy

import pytest
import torch
from conftest import fails_with_one_line, run
from test_encoder import FAMILIES, dense, family_model
from test_head_cpu import needs_library
from transformers import BertConfig, BertForMaskedLM

from utils.splade import int8, packing, vnni
from utils.splade.encoder import SpladeEncoder


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Round each row to multiples of its largest magnitude / 127, as the 8-bit codes do."""
    step = rows.abs().amax(1, keepdim=True) / 127
    return (rows / step).round().double() * step.double()


@needs_library
@pytest.mark.parametrize("tokens, size, outputs", [(1, 37, 70), (7, 64, 64), (200, 30, 130), (97, 128, 1)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_product_is_that_of_the_rounded_matrices(tokens, size, outputs, with_bias):
    torch.manual_seed(0)
    states, weight = torch.randn(tokens, size), torch.randn(outputs, size)
    bias = torch.randn(outputs) if with_bias else None
    expected = rounded(states) @ rounded(weight).T + (0 if bias is None else bias)
    torch.testing.assert_close(vnni.linear(states, weight, bias).double(), expected, rtol=1e-4, atol=1e-3)


@needs_library
def test_a_nan_stays_in_its_row():
    states = torch.ones(3, 20)
    states[1, 5] = float("nan")
    product = vnni.linear(states, torch.ones(4, 20), None)
    assert product[1].isnan().all() and product[[0, 2]].isfinite().all()


@needs_library
def test_vectors_stay_close_to_those_of_float32(tiny):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="int8")
    texts = ["how do jet engines burn fuel", "the boundary layer of a supersonic wing at high speed"]
    for vector, exact in zip(encoder.encode(texts), tiny.encode(texts)):
        a, b = torch.zeros(2, 30522)
        a[vector.indices.tolist()], b[exact.indices.tolist()] = map(torch.from_numpy, (vector.values, exact.values))
        assert 0.995 < torch.cosine_similarity(a, b, dim=0) < 1 - 1e-6  # close, but not float32 itself


@needs_library
def test_with_gradients_the_model_runs_in_float32(tiny):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="int8")
    batch = tiny.pad(tiny.tokenize(["how do jet engines burn fuel"]))
    torch.testing.assert_close(encoder(**batch), tiny(**batch))


def test_a_machine_without_vnni_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(vnni, "available", lambda: False)
    fails_with_one_line(run("embedder.py", "--model-dir", "splade-tiny", "--text", "a", "--precision", "int8"), "VNNI")


def test_training_refuses_int8(tmp_path):
    from train_splade import SpladeTrainer

    with pytest.raises(ValueError, match="encoding"):
        SpladeTrainer(model_name="splade-tiny", output_dir=str(tmp_path), precision="int8")


@pytest.fixture(scope="module")
def layer():
    """Return a layer of BERT with sharp attention, and the same layer in int8."""
    torch.manual_seed(0)
    shape = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 200, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(**shape, vocab_size=50)).eval()
    exact = model.bert.encoder.layer[0]
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        exact.attention.self.query.weight *= 3
    assert packing.enable_packing(model)
    quantized = copy.deepcopy(model)
    int8.quantize(quantized)
    return exact, quantized.bert.encoder.layer[0]


LENGTHS = [1, 7, 64, 65, 100, 3, 210, 2]  # tokens: below and above a panel (64), a block (96) and a group (192)


@needs_library
def test_a_whole_layer_is_close_to_the_models_own(layer):
    exact, quantized = layer
    states = torch.randn(1, sum(LENGTHS), 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, result = exact(states, text_lengths=LENGTHS), quantized(states, text_lengths=LENGTHS)
    for a, b in zip(result[0].split(LENGTHS), expected[0].split(LENGTHS)):
        assert 1e-4 < (a - b).norm() / b.norm() < 0.03


@needs_library
def test_attention_keeps_the_many_small_weights_beside_a_large_one(layer):
    exact, quantized = copy.deepcopy(layer)
    for module in (exact, quantized):
        attention = module.attention.self
        with torch.no_grad():  # the first token scores 5 above the others: each of them has 0.0067 of its weight
            attention.query.weight.zero_()
            attention.query.bias.fill_(1)
            attention.key.weight.zero_()[:, 0] = 5 / 32**0.5
            module.attention.output.dense.weight *= 5
    states = torch.randn(1, 400, 96, generator=torch.Generator().manual_seed(3))
    states[0, :, 0] = 0
    states[0, 0, 0] = 1
    states[0, 1:, 1:] += 1
    with torch.inference_mode():
        expected, result = exact(states, text_lengths=[400])[0, 1:], quantized(states, text_lengths=[400])[0, 1:]
    assert (result - expected).norm() / expected.norm() < 0.03


@needs_library
def test_a_layers_output_for_a_text_depends_on_neither_other_texts_nor_threads(layer):
    quantized = layer[1]
    states = torch.randn(1, sum(LENGTHS), 96, generator=torch.Generator().manual_seed(2))
    threads = torch.get_num_threads()
    with torch.inference_mode():
        together = quantized(states, text_lengths=LENGTHS)[0].split(LENGTHS)
        try:
            torch.set_num_threads(3)
            alone = [quantized(text[None], text_lengths=[len(text)])[0] for text in states[0].split(LENGTHS)]
        finally:
            torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(together, alone))


@needs_library
def test_a_nan_stays_in_its_text(layer):
    quantized = layer[1]
    states = torch.randn(1, 30, 96)
    states[0, 12, 3] = float("nan")
    with torch.inference_mode():
        before, affected, after = quantized(states, text_lengths=[10, 10, 10])[0].split(10)
    assert before.isfinite().all() and affected.isnan().all() and after.isfinite().all()


@needs_library
@pytest.mark.parametrize("family", FAMILIES)
def test_bert_like_layers_run_whole_and_others_by_their_linear_layers(family, monkeypatch):
    model, tokenizer = family_model(family)
    encoder = SpladeEncoder(model, tokenizer, precision="int8")
    exact = dense(encoder.encode(["a b c d e", "f g"]), 64)
    int8.quantize(model)
    called = []
    call = vnni.call
    monkeypatch.setattr(vnni, "call", lambda name, *arguments: (called.append(name), call(name, *arguments))[1])
    vectors = dense(encoder.encode(["a b c d e", "f g"]), 64)
    assert called.count("layer") == (0 if family == "ModernBert" else 2) and "linear" in called
    assert (torch.cosine_similarity(vectors, exact) > 0.97).all()
