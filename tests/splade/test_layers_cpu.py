"""Tests of linear layers and whole transformer layers in C++, in float32, bfloat16 and 8 bits."""

import copy
import gc
import weakref

import pytest
import torch
from conftest import SEVEN_BITS, fails_with_one_line, run
from test_encoder import FAMILIES, dense, family_model
from test_head_cpu import needs_library
from transformers import BertConfig, BertForMaskedLM

from utils import device
from utils.processor import INSTRUCTION_SETS
from utils.splade import kernels, packing
from utils.splade.encoder import SpladeEncoder
from utils.splade.layers_cpu import use_kernels


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Round each row to multiples of its largest magnitude / 127, as the 8-bit codes do."""
    step = rows.abs().amax(1, keepdim=True) / 127
    return (rows / step).round().double() * step.double()


# Errors of a layer's output, as a share of it, of which one is exceeded by a wrong product and none by rounding.
ERRORS = {"float32": 2e-6, "bfloat16": 0.01, "int8": 0.04}
ROUNDED_BELOW = {"float32": 0, "bfloat16": 1e-4, "int8": 1e-4}
each = pytest.mark.parametrize(  # precision that an instruction set has
    "precision, instruction_set",
    [(name, own) for own in INSTRUCTION_SETS for name in ERRORS if name != "bfloat16" or own == "avx512_bf16"],
    indirect=["instruction_set"],
)
here = pytest.mark.parametrize("precision", [name for name in ERRORS if name != "bfloat16" or kernels.has_bfloat16()])
SHAPES = [(1, 37, 70), (7, 64, 64), (200, 30, 130), (97, 128, 1)]  # tokens, size, outputs


def factors(tokens, size, outputs, with_bias):
    torch.manual_seed(0)
    return torch.randn(tokens, size), torch.randn(outputs, size), torch.randn(outputs) if with_bias else None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_product_in_float32_is_exact(shape, with_bias, instruction_set):
    states, weight, bias = factors(*shape, with_bias)
    expected = states.double() @ weight.double().T + (0 if bias is None else bias)
    torch.testing.assert_close(kernels.linear(states, weight, bias).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_product_in_8_bits_is_that_of_the_rounded_matrices(shape, with_bias, instruction_set):
    states, weight, bias = factors(*shape, with_bias)
    product = kernels.linear(states, weight, bias, "int8").double()
    expected = rounded(states) @ rounded(weight).T + (0 if bias is None else bias)
    if instruction_set in SEVEN_BITS:  # and coarser steps of tokens
        assert (product - expected).norm() < 0.03 * expected.norm()
    else:
        torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("instruction_set", ["avx512_bf16"], indirect=True)
def test_the_product_in_bfloat16_is_that_of_the_rounded_matrices(shape, with_bias, instruction_set):
    states, weight, bias = factors(*shape, with_bias)
    expected = states.bfloat16().double() @ weight.bfloat16().double().T + (0 if bias is None else bias)
    product = kernels.linear(states, weight, bias, "bfloat16").double()
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_codes_do_not_overflow(sign, instruction_set):
    states, weight = torch.full((5, 768), 3.0), torch.full((40, 768), 2.0 * sign)
    states[1, 64:] = 0
    states[2] *= torch.arange(768) % 2
    states[3, 5:] *= -1
    product = kernels.linear(states, weight, None, "int8")
    torch.testing.assert_close(product, states @ weight.T, rtol=0.02, atol=0)


@each
def test_a_nan_stays_in_its_row(precision, instruction_set):
    states = torch.ones(3, 20)
    states[1, 5] = float("nan")
    product = kernels.linear(states, torch.ones(4, 20), None, precision)
    assert product[1].isnan().all() and product[[0, 2]].isfinite().all()


def test_vectors_stay_close_to_those_of_float32(tiny, instruction_set):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="int8")
    texts = ["how do jet engines burn fuel", "the boundary layer of a supersonic wing at high speed"]
    for vector, exact in zip(encoder.encode(texts), tiny.encode(texts)):
        a, b = torch.zeros(2, 30522)
        a[vector.indices.tolist()], b[exact.indices.tolist()] = map(torch.from_numpy, (vector.values, exact.values))
        assert 0.99 < torch.cosine_similarity(a, b, dim=0) < 1 - 1e-6  # close, but not float32 itself


@needs_library
def test_with_gradients_the_model_runs_in_float32(tiny):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="int8")
    batch = tiny.pad(tiny.tokenize(["how do jet engines burn fuel"]))
    torch.testing.assert_close(encoder(**batch), tiny(**batch))


def test_a_machine_without_kernels_is_reported_in_one_line(monkeypatch):
    monkeypatch.setattr(kernels, "available", lambda: False)
    fails_with_one_line(run("embedder.py", "--model-dir", "splade-tiny", "--text", "a", "--precision", "int8"), "AVX2")


def test_training_refuses_int8(tmp_path):
    from train_splade import SpladeTrainer

    with pytest.raises(ValueError, match="encoding"):
        SpladeTrainer(model_name="splade-tiny", output_dir=str(tmp_path), precision="int8")


@pytest.fixture(scope="module")
def exact():
    """Return a layer of BERT with sharp attention."""
    torch.manual_seed(0)
    shape = {"hidden_size": 90, "num_attention_heads": 3, "intermediate_size": 203, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(**shape, vocab_size=50)).eval()
    layer = model.bert.encoder.layer[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        layer.attention.self.query.weight *= 3
    assert packing.enable_packing(model)
    return model


def in_cpp(model, precision):
    """Return the layer of a copy of the model that runs in C++."""
    model = copy.deepcopy(model)
    use_kernels(model, precision)
    layer = model.bert.encoder.layer[0]
    assert "forward" in layer.__dict__  # a layer that fails the check of `use_kernels` would run in torch
    return layer


LENGTHS = [1, 7, 0, 64, 65, 100, 3, 210, 2]  # tokens: below and above panels (8 to 32), blocks (96, 192), a group (192)


@each
def test_a_whole_layer_is_close_to_the_models_own(exact, precision, instruction_set):
    states = torch.randn(1, sum(LENGTHS), 90, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = exact.bert.encoder.layer[0](states, text_lengths=LENGTHS)
        result = in_cpp(exact, precision)(states, text_lengths=LENGTHS)
    for a, b in zip(result[0].split(LENGTHS), expected[0].split(LENGTHS)):
        error = (a - b).norm() / b.norm()
        assert not len(b) or ROUNDED_BELOW[precision] < error < ERRORS[precision]


@each
@pytest.mark.parametrize("lead", [5, 7])
def test_attention_keeps_the_many_small_weights_beside_a_large_one(lead, exact, precision, instruction_set):
    model = copy.deepcopy(exact)
    module = model.bert.encoder.layer[0]
    attention = module.attention.self
    with torch.no_grad():  # the first token scores `lead` above the others: each of them has exp(-lead) of its weight
        attention.query.weight.zero_()
        attention.query.bias.fill_(1)
        attention.key.weight.zero_()[:, 0] = lead / 30**0.5
        module.attention.output.dense.weight *= 5
    states = torch.randn(1, 400, 90, generator=torch.Generator().manual_seed(3))
    states[0, :, 0] = 0
    states[0, 0, 0] = 1
    states[0, 1:, 1:] += 1
    with torch.inference_mode():
        expected = module(states, text_lengths=[400])[0, 1:]
        result = in_cpp(model, precision)(states, text_lengths=[400])[0, 1:]
    assert (result - expected).norm() / expected.norm() < (1e-5 if precision == "float32" else 0.06)


@each
def test_attention_of_very_large_scores_is_right(exact, precision, instruction_set):
    model = copy.deepcopy(exact)
    attention = model.bert.encoder.layer[0].attention.self
    states = torch.randn(1, 20, 90, generator=torch.Generator().manual_seed(3))
    for large in (201.0, 207.0, 213.0, 219.0, 225.0):  # each score is its square times 30^0.5, about 250,000
        with torch.no_grad():
            for part in (attention.query, attention.key):
                part.weight.zero_()
                part.bias.fill_(large)
        with torch.inference_mode():
            expected = model.bert.encoder.layer[0](states, text_lengths=[20])
            result = in_cpp(model, precision)(states, text_lengths=[20])
        assert (result - expected).norm() < ERRORS[precision] * expected.norm()


@each
def test_gelu_is_right_far_from_zero_too(precision, instruction_set):
    model = random_layer()
    layer = model.bert.encoder.layer[0]
    with torch.no_grad():
        layer.intermediate.dense.weight *= 20  # then the inputs of GELU have a standard deviation of 6
    states = torch.randn(1, 50, 256)
    with torch.inference_mode():
        result = in_cpp(model, precision)(states, text_lengths=[50])
        expected = layer.double()(states.double(), text_lengths=[50])
    assert (result - expected).norm() < ERRORS[precision] * expected.norm()


@each
def test_a_layers_output_for_a_text_depends_on_neither_other_texts_nor_threads(
    exact, precision, instruction_set, monkeypatch
):
    monkeypatch.setattr(kernels, "PRODUCTS_PER_THREAD", 1)
    layer = in_cpp(exact, precision)
    states = torch.randn(1, sum(LENGTHS), 90, generator=torch.Generator().manual_seed(2))
    threads = torch.get_num_threads()
    with torch.inference_mode():
        torch.set_num_threads(1)
        try:
            together = layer(states, text_lengths=LENGTHS)[0].split(LENGTHS)
            torch.set_num_threads(3)  # each takes one of the four groups, and all share the last
            shared = layer(states, text_lengths=LENGTHS)[0].split(LENGTHS)
            alone = [layer(text[None], text_lengths=[len(text)])[0] for text in states[0].split(LENGTHS)]
        finally:
            torch.set_num_threads(threads)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(together, shared, alone))


@each
def test_a_nan_stays_in_its_text(exact, precision, instruction_set):
    layer = in_cpp(exact, precision)
    states = torch.randn(1, 30, 90)
    states[0, 12, 3] = float("nan")
    with torch.inference_mode():
        before, affected, after = layer(states, text_lengths=[10, 10, 10])[0].split(10)
    assert before.isfinite().all() and affected.isnan().all() and after.isfinite().all()


@needs_library
@here
def test_where_torch_has_to_run_the_layer_is_the_models_own(exact, precision):
    layer, own = in_cpp(exact, precision), exact.bert.encoder.layer[0]
    states = torch.randn(1, 12, 90)
    assert torch.equal(layer(states, text_lengths=[12]), own(states, text_lengths=[12]))  # with gradients
    if precision != "int8":
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(states, text_lengths=[12]), own(states, text_lengths=[12]))


def random_layer(**settings):
    """Return a model of one layer of BERT with random weights, as wide as a small real one."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 1}
    model = BertForMaskedLM(BertConfig(**shape | settings, vocab_size=50)).eval()
    assert packing.enable_packing(model)
    return model


@each
def test_a_layer_may_be_narrower_within_than_its_states(precision, instruction_set):
    model = random_layer(intermediate_size=3)
    states = torch.randn(1, 190, 256)
    with torch.inference_mode():
        expected = model.bert.encoder.layer[0](states, text_lengths=[190])
        result = in_cpp(model, precision)(states, text_lengths=[190])
    assert (result - expected).norm() < ERRORS[precision] * expected.norm()


@each
@pytest.mark.parametrize("part", ["attention.self.value.weight", "output.dense.bias", "output.LayerNorm.bias"])
@pytest.mark.parametrize("change", ["in place", "by a fused optimizer", "exchanged"])
def test_a_layer_follows_each_of_its_parameters(part, change, precision, instruction_set):
    layer = in_cpp(random_layer(), precision)
    states, parameter = torch.randn(1, 9, 256), layer.get_parameter(part)
    with torch.inference_mode():
        before = layer(states, text_lengths=[9])
    if change == "in place":
        with torch.no_grad():
            parameter += torch.randn_like(parameter)
    elif change == "exchanged":
        parameter.data = torch.randn_like(parameter)
    else:
        parameter.grad = torch.randn_like(parameter)
        torch.optim.AdamW([parameter], lr=1.0, fused=True).step()
    with torch.inference_mode():
        result = layer(states, text_lengths=[9])
        expected = type(layer).forward(layer, states, text_lengths=[9])
    assert (result - expected).norm() < ERRORS[precision] * expected.norm()
    assert (result - before).norm() > 0.1 * expected.norm()


@needs_library
@here
@pytest.mark.parametrize("by_keyword", [True, False])
def test_one_text_that_has_a_mask_runs_by_the_models_own_forward(by_keyword, exact, precision):
    layer, own = in_cpp(exact, precision), exact.bert.encoder.layer[0]
    states, mask = torch.randn(1, 12, 90), torch.zeros(1, 1, 12, 12)
    mask[..., 7:] = float("-inf")

    def run(part):
        return part(states, attention_mask=mask) if by_keyword else part(states, mask)

    with torch.inference_mode():
        result, expected, unmasked = run(layer), run(own), own(states)
    assert (result - expected).norm() < ERRORS[precision] * expected.norm()
    assert (result - unmasked).norm() > 0.1 * expected.norm()


@each
def test_what_is_packed_of_a_layer_goes_with_it(precision, instruction_set):
    layer = in_cpp(random_layer(), precision)
    with torch.inference_mode():
        layer(torch.randn(1, 9, 256), text_lengths=[9])
    kept = [weakref.ref(parameter) for parameter in layer.parameters()]
    assert all(ref() in kernels._kept for ref in kept if ref().dim() == 2)
    del layer
    gc.collect()
    assert all(ref() is None for ref in kept)


@needs_library
@here
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["relu", "silu", "quick_gelu", "gelu_new"])
def test_a_layer_of_another_activation_keeps_its_own_forward(activation, training, precision):
    model = random_layer(hidden_act=activation, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    use_kernels(model.train(training), precision)
    assert "forward" not in model.bert.encoder.layer[0].__dict__
    in_cpp(random_layer().train(training), precision)
    assert model.training == training


@needs_library
@here
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_that_is_converted_after_its_trace_computes_in_float32(dtype, precision):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision=precision)
    query = "how do jet engines burn fuel"
    before = dense([encoder.encode_query(query)], 30522)
    encoder.model.to(dtype)
    for vectors in (encoder.encode([query]), [encoder.encode_query(query)]):
        assert torch.cosine_similarity(dense(vectors, 30522), before) > 0.99


@needs_library
@here
@pytest.mark.parametrize("family", FAMILIES)
def test_bert_like_layers_run_whole_and_others_by_their_linear_layers(family, precision, monkeypatch):
    model, tokenizer = family_model(family)
    with monkeypatch.context() as context:
        context.setenv("SPLADE_ISA", "torch")
        encoder = SpladeEncoder(model, tokenizer, precision="float32")
        exact = dense(encoder.encode(["a b c d e", "f g"]), 64)
    use_kernels(model, precision)
    called = []
    call = kernels.call
    monkeypatch.setattr(
        kernels, "call", lambda name, *rest, **more: (called.append(name), call(name, *rest, **more))[1]
    )
    layers = 0 if family == "ModernBert" else 2
    vectors = dense(encoder.encode(["a b c d e", "f g"]), 64)
    assert called.count("layer") == layers and "linear" in called
    encoder.encode_query("a b")  # traces the model
    called.clear()
    query = dense([encoder.encode_query("a b c d e")], 64)
    assert called.count("layer") == layers and "linear" in called
    assert torch.cosine_similarity(query, vectors[:1]) > 0.999
    if precision != "float32":
        assert (torch.cosine_similarity(vectors, exact) > 0.97).all()
    else:
        torch.testing.assert_close(vectors, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "precision, is_fast, has_kernels, expected",
    [
        ("auto", True, True, ("bfloat16", "float32")),
        ("auto", True, False, ("float32", "auto")),  # in torch's autocast
        ("auto", False, True, ("float32", "auto")),
        ("bfloat16", False, True, ("bfloat16", "float32")),
        ("bfloat16", False, False, ("float32", "bfloat16")),
        ("float32", True, True, ("float32", "float32")),
    ],
)
def test_layers_are_in_bfloat16_where_it_is_asked_for_or_fast(precision, is_fast, has_kernels, expected, monkeypatch):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32")
    monkeypatch.setattr(device, "bfloat16_is_fast", lambda _: is_fast)
    monkeypatch.setattr(kernels, "has_bfloat16", lambda: has_kernels)
    monkeypatch.setattr(encoder, "precision", precision)
    encoder.forget_trace()
    assert (encoder._layer_precision, encoder._encoding_precision) == expected


@needs_library
def test_amx_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert not kernels.has_bfloat16()
