"""Training with the real model on little data."""

import json
import os

import pytest
import torch
from conftest import fails_with_one_line, run
from safetensors.torch import load_file

import train_splade
from train_splade import SpladeTrainer, collate, tokenised
from utils.encoder import SpladeEncoder
from utils.records import TrainingExample

SCRIPT = "train_splade.py"
TOPICS = ("engine", "brake", "mirror", "window", "radio", "heater", "clutch", "ladder")


def examples(count=16):
    return [
        {
            "query": f"{topic} number {i}",
            "positive_document": f"This page explains how the {topic} works, part {i} of the manual.",
            "negative_documents": [f"A page about something else than that, {i}."],
            "positive_id": f"{topic}-{i}",
        }
        for i, topic in zip(range(count), TOPICS * 8)
    ]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "training_data.json").write_text(json.dumps(examples()))
    (tmp_path / "validation_data.json").write_text(json.dumps(examples(6)))
    return tmp_path


def trainer(data, **options):
    defaults = {
        "model_name": "splade-tiny",
        "output_dir": data / "model",
        "train_file": data / "training_data.json",
        "val_file": data / "validation_data.json",
        "epochs": 2,
        "device": "cpu",
    }
    return SpladeTrainer(**defaults | options)


def test_training_lowers_the_loss_and_writes_a_folder_that_opens(data, tiny):
    history = trainer(data, epochs=4, learning_rate=5e-4, dropout=0.0).train()
    assert history[-1]["loss"] < history[0]["loss"]
    written = json.loads((data / "model" / "training_history.json").read_text())
    assert written["epochs"] == history and written["settings"]["learning_rate"] == 5e-4
    assert {"epoch", "loss", "val_loss", "query_terms", "doc_terms"} <= set(history[0])
    tuned = SpladeEncoder.from_pretrained(data / "model", "cpu", precision="float32")
    assert tuned.base_model == "splade-tiny" and tuned.training_notes["examples"] == 16
    before, after = (model.encode(["engine"])[0] for model in (tiny, tuned))
    assert before.values.tolist() != after.values.tolist()
    assert not (data / "model" / "checkpoints").exists()


def test_the_epoch_with_the_lowest_validation_loss_is_kept(data):
    training = trainer(data, epochs=3, learning_rate=1e-3)
    saved = {}
    save = SpladeEncoder.save_pretrained

    def remember(self, folder):
        save(self, folder)
        saved[str(folder)] = load_file(os.path.join(folder, "model.safetensors"))

    def losses(self, *arguments, **options):
        return torch.tensor([2.0, 1.0, 3.0][round(self.state.epoch) - 1]), None, None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpladeEncoder, "save_pretrained", remember)
        patch.setattr(train_splade._ContrastiveTrainer, "prediction_step", losses)
        history = training.train()
    best = min(history, key=lambda record: record["val_loss"])["epoch"]
    assert best == 2, history
    checkpoints = sorted((name for name in saved if "checkpoint-" in name), key=lambda name: int(name.rsplit("-")[-1]))
    final, kept = saved[str(data / "model")], saved[checkpoints[best - 1]]
    assert all(torch.equal(final[name], kept[name]) for name in kept)


def test_regularisation_makes_vectors_sparser(data):
    terms = [
        trainer(data, epochs=6, learning_rate=1e-3, lambda_d=weight, lambda_q=weight).train()[-1]["doc_terms"]
        for weight in (0.0, 0.1)
    ]
    assert terms[1] < 0.8 * terms[0]


def test_the_same_seed_gives_the_same_weights(data):
    folders = [data / "a", data / "b"]
    for folder in folders:
        trainer(data, output_dir=folder, epochs=1, precision="float32").train()
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_other_examples_of_the_same_positive_are_masked(tiny):
    rows = [("a", "p1", "one"), ("b", "p1", "one without a word"), ("c", "p2", "two")]
    made = [TrainingExample(query=q, positive_id=i, positive_document=text) for q, i, text in rows]
    batch = collate(tokenised(made, tiny), tiny)
    assert batch["false_negatives"].tolist() == [[False, True, False], [True, False, False], [False] * 3]


def test_a_negative_that_is_another_queries_positive_is_masked_for_it(tiny):
    made = [
        TrainingExample(query="a", positive_document="first text", negative_documents=["third text", ""]),
        TrainingExample(query="b", positive_document="third text"),
    ]
    batch = collate(tokenised(made, tiny), tiny)
    assert batch["false_negatives"].tolist() == [[False, False, False], [False, False, True]]


def test_empty_documents_are_skipped_and_counted(data):
    broken = [*examples(4), {"query": "q", "positive_document": " "}, {"query": "", "positive_document": "p"}]
    (data / "training_data.json").write_text(json.dumps(broken))
    done = run(SCRIPT, "--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--epochs", 1,
               "--output-dir", data / "model", "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipped 2 examples" in done.stdout and "4 examples, 6 for validation" in done.stdout


def test_without_a_validation_file_the_last_epoch_is_kept(data):
    (data / "validation_data.json").unlink()
    history = trainer(data, val_file="validation_data.json").train()
    assert "val_loss" not in history[0] and (data / "model" / "model.safetensors").is_file()


BAD = {
    "batch size 0": (["--batch-size", "0"], "at least 1"),
    "missing file": (["--train-file", "{tmp}/none.json"], "No such file"),
    "missing validation file": (["--val-file", "{tmp}/none.json"], "No such file"),
    "no CUDA here": (["--device", "cuda:9"], "not available here"),
    "unknown device": (["--device", "gpu"], "unknown device"),
    "missing model": (["--model-name", "{tmp}/none"], "no such model folder"),
    "output under a file": (["--output-dir", "{tmp}/training_data.json/model"], "cannot write"),
    "negative rate": (["--learning-rate", "-1"], "at least 0"),
    "positive among negatives": (["--train-file", "{tmp}/self.json"], "record 1: the positive document is among"),
    "only empty examples": (["--train-file", "{tmp}/hollow.json"], "every example has an empty"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(data, arguments, message):
    (data / "self.json").write_text('[{"query": "q", "positive_document": "p", "negative_documents": ["p"]}]')
    (data / "hollow.json").write_text('[{"query": "", "positive_document": ""}]')
    options = {"--model-name": "splade-tiny", "--output-dir": data / "model", "--device": "cpu"}
    options |= {"--train-file": data / "training_data.json"}
    options |= {arguments[0]: arguments[1].format(tmp=data)}
    fails_with_one_line(run(SCRIPT, *(part for option in options.items() for part in option)), message)
    assert not (data / "model" / "model.safetensors").exists()


def test_a_library_call_with_a_bad_setting_raises(data):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        trainer(data, batch_size=0)
