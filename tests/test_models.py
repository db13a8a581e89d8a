"""From names to folders and hub ids, and what cannot be opened."""

import importlib.metadata
from pathlib import Path

import pytest
from conftest import fails_with_one_line, run
from transformers import BertConfig, BertModel

from utils.models import load_masked_lm, resolve_model


def test_splade_tiny_is_the_installed_packages_folder():
    folder = Path(resolve_model("splade-tiny"))
    assert (folder / "model.safetensors").is_file()


def test_splade_tiny_falls_back_to_the_hub_id(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert resolve_model("splade-tiny") == "rasyosef/splade-tiny"


def test_other_names_stay_folders_or_hub_ids(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(tmp_path) == str(tmp_path)
    assert resolve_model("prithivida/Splade_PP_en_v1") == "prithivida/Splade_PP_en_v1"


def test_a_missing_path_is_not_taken_for_a_hub_id(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        resolve_model(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        resolve_model("./none")


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        resolve_model(tmp_path)


def test_a_model_without_a_masked_lm_head_is_refused(tmp_path):
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=30522
    )
    BertModel(config).save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(resolve_model("splade-tiny")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no masked-LM head"):
        load_masked_lm(tmp_path)


def test_a_pickled_model_is_not_opened(tmp_path, tiny):
    import torch

    tiny.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="cannot load model"):
        load_masked_lm(tmp_path)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = run("embedder.py", "--model-dir", "nobody/no-such-model", "--text", "a")
    fails_with_one_line(done, "cannot load model 'nobody/no-such-model'")
