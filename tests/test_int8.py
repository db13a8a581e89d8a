"""Linear layers on 8-bit codes."""

import pytest
import torch
from conftest import fails_with_one_line, run
from test_splade_head_cpu import needs_library

from utils import vnni
from utils.encoder import SpladeEncoder


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Each row in steps of its largest element's 127th, as the codes hold it."""
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
def test_a_state_that_is_not_a_number_stays_in_its_row():
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
        assert 0.995 < torch.cosine_similarity(a, b, dim=0) < 1 - 1e-6  # near, and not the float32 way in disguise


@needs_library
def test_gradients_are_those_of_the_weights_themselves(tiny):
    encoder = SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="int8")
    batch = tiny.pad(tiny.tokenize(["how do jet engines burn fuel"]))
    torch.testing.assert_close(encoder(**batch), tiny(**batch))


def test_a_machine_that_cannot_says_so(monkeypatch):
    monkeypatch.setattr(vnni, "available", lambda: False)
    fails_with_one_line(run("embedder.py", "--model-dir", "splade-tiny", "--text", "a", "--precision", "int8"), "VNNI")


def test_training_refuses_it(tmp_path):
    from train_splade import SpladeTrainer

    with pytest.raises(ValueError, match="encoding"):
        SpladeTrainer(model_name="splade-tiny", output_dir=str(tmp_path), precision="int8")
