"""The model card."""

import re

import pytest

from utils.splade.model_folder import PEER_ACTIVATIONS
from utils.training.model_card import model_card

HISTORY = [
    {"epoch": 1, "loss": 1.0, "query_terms": 20.0, "doc_terms": 90.0},
    {"epoch": 2, "loss": 0.5, "query_terms": 22.4, "doc_terms": 110.2},
]


def test_a_card_tells_the_data_the_settings_and_the_epoch_that_was_kept(tmp_path):
    (tmp_path / "base").mkdir()
    settings = {
        "model_name": str(tmp_path / "base"),
        "output_dir": str(tmp_path / "out"),
        "train_file": str(tmp_path / "training_data.json"),
        "val_file": None,
        "loss": ["contrastive=0.5", "kl"],
        "learning_rate": 2e-5,
        "teacher": ["bm25", str(tmp_path / "base")],
    }
    card = model_card(settings, HISTORY, best_epoch=2, examples=1234, activation="log1p_relu")
    assert card.startswith("---\nbase_model: base\n") and str(tmp_path) not in card
    assert "110 active terms a document and 22 a query" in card and "Epoch 2 of 2" in card
    assert "1,234 training examples, of training_data.json." in card
    assert "contrastive=0.5 kl" in card and "2e-05" in card and "bm25 base" in card


def test_a_hub_id_is_told_whole():
    settings = {"model_name": "someone/model", "train_file": "t.json", "val_file": "v.json", "seed": 1}
    card = model_card(settings, HISTORY[:1], best_epoch=1, examples=1, activation="log1p_relu")
    assert "base_model: someone/model" in card and "of t.json and v.json" in card


@pytest.mark.parametrize("activation", PEER_ACTIVATIONS)
def test_a_card_has_the_formula_of_the_models_activation(activation):
    settings = {"model_name": "someone/model", "train_file": "t.json", "val_file": None, "seed": 1}
    card = model_card(settings, HISTORY[:1], best_epoch=1, examples=1, activation=activation)
    formula = re.search("`(log.*)`", card)[1]
    assert re.findall(r"(\w+)\(", formula) == ["log"] * activation.count("log1p") + ["relu"]
