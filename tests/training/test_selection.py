import numpy as np
import pytest
import torch

from utils.evaluation.collection import Collection
from utils.records import Document
from utils.splade.encoder import SpladeEncoder
from utils.training.selection import _same_top, copy_weights, describe_selection, keep_best

TEXTS = {
    "brakes": "Open the valve at the rear left wheel first, then at the others, until no more air comes out.",
    "heater": "The heater needs two minutes before it blows warm air into the cabin.",
    "tires": "Check the pressure of the tires while they are cold, before a long journey.",
    "oil": "Drain the old oil while the engine is warm, and change the filter with it.",
}
QUERIES = {
    "brakes": "bleed the brakes",
    "heater": "how long until the cabin gets hot",
    "tires": "tire pressure",
    "oil": "change of engine oil",
}


@pytest.fixture
def data():
    documents = [Document(id=name, text=text) for name, text in TEXTS.items()]
    return Collection(documents, dict(QUERIES), {name: {name: 1} for name in QUERIES})


@pytest.fixture
def encoder():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", precision="float32")


def spoil(encoder, share):
    """Move the weights of the vocabulary's terms to those of other terms, by a share."""
    with torch.no_grad():
        weight = encoder.model.get_output_embeddings().weight
        weight.lerp_(weight.roll(7, 0), share)


def test_a_tuning_that_spoiled_the_model_is_undone(encoder, data):
    untuned = copy_weights(encoder)
    spoil(encoder, 1.0)
    selection = keep_best(encoder, untuned, data, free=True)
    assert selection["kept"] == "untuned"
    assert all(torch.equal(weights, untuned[name]) for name, weights in encoder.state_dict().items())
    assert selection["over_untuned"]["mean"] < 0
    assert describe_selection(selection).startswith("kept the untuned model: nDCG@10 0.9")
    assert "tuning gained nothing: -" in describe_selection(selection)


def test_a_tuning_that_gained_is_kept(encoder, data):
    tuned = copy_weights(encoder)
    spoil(encoder, 1.0)
    untuned = copy_weights(encoder)
    encoder.load_state_dict(tuned)
    selection = keep_best(encoder, untuned, data, free=True)
    assert selection["kept"] == "tuned"
    assert all(torch.equal(weights, tuned[name]) for name, weights in encoder.state_dict().items())
    figures = selection["nDCG@10"]
    assert figures["tuned"] > figures["untuned"]
    np.testing.assert_allclose(selection["over_untuned"]["mean"], figures["tuned"] - figures["untuned"])
    np.testing.assert_allclose(selection["over_bm25"]["mean"], figures["tuned"] - figures["BM25"])
    assert "kept the best epoch" in describe_selection(selection)


def test_the_average_is_kept_where_it_is_the_best(encoder, data):
    weight = encoder.model.get_output_embeddings().weight
    good = copy_weights(encoder)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 3 * weight.std().item()
    with torch.no_grad():
        weight.sub_(noise)
        untuned = copy_weights(encoder)
        weight.add_(2 * noise)
    selection = keep_best(encoder, untuned, data, free=True)
    assert selection["kept"] == "average"
    name = next(name for name, part in encoder.named_parameters() if part is weight)
    torch.testing.assert_close(encoder.state_dict()[name], good[name], atol=1e-5, rtol=0)


def test_what_was_asked_for_is_kept_whatever_it_costs(encoder, data):
    untuned = copy_weights(encoder)
    spoil(encoder, 1.0)
    selection = keep_best(encoder, untuned, data, free=False)
    assert selection["kept"] == "tuned" and selection["over_untuned"]["mean"] < 0
    assert "average" not in selection["nDCG@10"]
    selection["over_untuned"] = {"mean": -0.2, "low": -0.25, "high": -0.15, "p": 0.04}
    assert "over the untuned model -0.200 (-0.250 to -0.150), over BM25" in describe_selection(selection)
    selection["over_untuned"]["high"] = 0.01
    assert "(-0.250 to +0.010), which may be chance, over BM25" in describe_selection(selection)
    selection["over_untuned"] |= {"high": -0.15, "p": 0.06}
    assert "(-0.250 to -0.150), which may be chance, over BM25" in describe_selection(selection)
    selection["over_untuned"]["p"] = 0.04
    selection["nDCG@10"]["average"] = 0.1  # the better of two
    assert "(-0.250 to -0.150), which may be chance, over BM25" in describe_selection(selection)


def test_how_far_the_model_moved_is_the_share_of_its_first_documents_that_are_still_first():
    before = {"q": {str(i): 20.0 - i for i in range(15)}, "r": {"a": 1.0}}
    after = {"q": {str(i): float(i) for i in range(15)}, "r": {"a": 1.0}}
    assert _same_top(after, before) == pytest.approx((5 / 10 + 1) / 2)
