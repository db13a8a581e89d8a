"""Training with the real model on little data."""

import argparse
import calendar
import codecs
import csv
import errno
import inspect
import itertools
import json
import locale
import math
import os
import random
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, fails_with_one_line, run
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from train_splade import SpladeTrainer
from utils.evaluation.runs import ModelRun, run_model
from utils.models import resolve_model
from utils.splade import kernels
from utils.splade.encoder import SpladeEncoder
from utils.training import checkpoints
from utils.training.tokenization import corpus_idf, tokenize_examples
from utils.training.trainer import EncoderTrainer

SCRIPT = "train_splade.py"
STEP = EncoderTrainer.training_step
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
    (tmp_path / "docs.json").write_text(json.dumps([row["positive_document"] for row in examples()]))
    return tmp_path


DEFAULT = object()  # of an option of `trainer` that is not given


def trainer(data, **options):
    defaults = {
        "model_name": "splade-tiny",
        "output_dir": data / "model",
        "train_file": data / "training_data.json",
        "val_file": data / "validation_data.json",
        "epochs": 2,
        "learning_rate": 5e-5,
        "batch_size": 8,
        "device": "cpu",
    }
    return SpladeTrainer(**{name: value for name, value in (defaults | options).items() if value is not DEFAULT})


def model_run(metric, doc_terms=9, query_terms=9):
    """What validation finds, with a metric of all queries."""
    return ModelRun({f"q{i}": {} for i in range(6)}, np.full(6, metric), doc_terms, query_terms)


def test_training_lowers_the_loss_and_writes_a_folder_that_opens(data, tiny):
    history = trainer(data, epochs=4, learning_rate=5e-4).train()
    assert history[-1]["loss"] < history[0]["loss"]
    written = json.loads((data / "model" / "training_history.json").read_text())
    assert written["epochs"] == history and written["settings"]["learning_rate"] == 5e-4
    assert {"epoch", "loss", "val_loss", "query_terms", "doc_terms"} <= set(history[0])
    tuned = SpladeEncoder.from_pretrained(data / "model", "cpu", precision="float32")
    assert tuned.base_model == "splade-tiny" and tuned.training_notes["examples"] == 16
    before, after = (model.encode(["engine"])[0] for model in (tiny, tuned))
    assert before.values.tolist() != after.values.tolist()
    assert not (data / "model" / "checkpoints").exists()
    card = (data / "model" / "README.md").read_text()
    assert "base_model: splade-tiny" in card and "16 training examples, of training_data.json" in card
    assert str(data) not in card and f"{history[0]['doc_terms']:.1f}" in card


def test_each_step_finds_terms_with_the_weights_of_its_own(data, packed):
    seen, counts = [], []

    def remember(self, *arguments):
        before = len(packed)
        loss = STEP(self, *arguments)
        counts.append(len(packed) - before)
        seen.append(kernels.pack(self.model.model.get_output_embeddings().weight))
        return loss

    training = trainer(data, epochs=1, val_file=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTrainer, "training_step", remember)
        training.train()
    seen.append(kernels.pack(training.encoder.model.get_output_embeddings().weight))
    assert seen[0] is not seen[1] is not seen[2] and counts == [kernels.available()] * 2


def test_the_folder_opens_in_sentence_transformers_with_the_same_vectors(data):
    trainer(data, epochs=1).train()
    texts = [
        "how the engine works",
        "This page explains how the brake works, part 3 of the manual.",
        "\uff52adio",
        "radio",
    ]
    theirs = SparseEncoder(str(data / "model"), device="cpu").encode(texts, convert_to_sparse_tensor=False)
    ours = SpladeEncoder.from_pretrained(data / "model", "cpu", precision="float32").encode(texts)
    for vector, row in zip(ours, theirs):
        assert set(vector.indices.tolist()) == set(row.nonzero()[:, 0].tolist())
        torch.testing.assert_close(torch.from_numpy(vector.values), row[vector.indices.tolist()], rtol=1e-4, atol=1e-5)
    assert ours[2].indices.tolist() == ours[3].indices.tolist()  # full-width letters are letters, there and here


@pytest.fixture
def doc_only(data):
    """A model whose queries do not pass the network."""
    trainer(data, epochs=2, query_encoder="idf", learning_rate=1e-3, lambda_d=1e-2, precision="float32").train()
    return SpladeEncoder.from_pretrained(data / "model", "cpu", precision="float32")


def test_queries_without_a_model_are_their_own_tokens_by_trained_weights(data, doc_only):
    untrained = trainer(data, query_encoder="idf", output_dir=data / "new")
    encoder = untrained.load()
    idf = corpus_idf(tokenize_examples(untrained.examples, encoder), encoder)
    engine, page, number = (doc_only.tokenizer.convert_tokens_to_ids(word) for word in ("engine", "page", "number"))
    # 32 documents: all say "page", two say "engine"; "number" is in none.
    expected = torch.log1p(torch.tensor([(32 - count + 0.5) / (count + 0.5) for count in (2.0, 32.0, 0.0)]))
    torch.testing.assert_close(idf[[engine, page, number]] / idf[number], expected / expected[2])
    assert idf[doc_only.tokenizer.all_special_ids].tolist() == [0] * 5
    found = doc_only.encode_query("Engine number engine")
    assert found.indices.tolist() == sorted((engine, number))
    after = doc_only.query_weights.detach()
    assert found.values.tolist() == after[sorted((engine, number))].tolist()
    assert (after - idf)[engine].abs() > 1e-3 and after[doc_only.tokenizer.all_special_ids].tolist() == [0] * 5
    assert [len(doc_only.encode_query(text).indices) for text in ("", "[CLS]")] == [0, 0]


def test_queries_without_a_model_work_in_every_script_and_in_sentence_transformers(data, doc_only):
    settings = json.loads((data / "model" / "splade_config.json").read_text())
    assert settings["query_encoder"] == "idf" and settings["training"]["query_encoder"] == "idf"
    done = run("test_queries.py", "--model-dir", data / "model", "--query", "brake", "--docs-file", data / "docs.json")
    assert done.returncode == 0, done.stderr
    assert "brake 100%" in done.stdout
    done = run("test_evaluate.py", "--model-dir", data / "model", "--test-file", data / "validation_data.json")
    assert done.returncode == 0 and "       3.2  " in done.stdout, done.stdout
    done = run("embedder.py", "--model-dir", data / "model", "--queries", "--text", "the brake", "--device", "cpu")
    assert done.returncode == 0 and "the brake  (2 terms)" in done.stdout, done.stderr
    peer = SparseEncoder(str(data / "model"), device="cpu")
    texts = ["This page explains how the brake works", "radio number 7"]
    pairs = [
        (peer.encode_query, doc_only.encode_query),
        (peer.encode_document, lambda text: doc_only.encode([text])[0]),
    ]
    for theirs, ours in pairs:
        for text in texts:
            row, vector = theirs(text, convert_to_sparse_tensor=False), ours(text)
            assert row.nonzero()[:, 0].tolist() == vector.indices.tolist()
            torch.testing.assert_close(row[vector.indices.tolist()], torch.from_numpy(vector.values))


def test_a_model_without_a_query_encoder_is_tuned_further_as_such_or_given_one(data, doc_only):
    again = trainer(data, model_name=data / "model", output_dir=data / "again", epochs=1)
    assert torch.equal(again.load().query_weights, doc_only.query_weights)
    again.train()
    tuned = SpladeEncoder.from_pretrained(data / "again", "cpu")
    assert tuned.query_weights is not None
    (data / "again" / "notes.txt").write_text("mine")
    options = {"model_name": data / "again", "output_dir": data / "again", "query_encoder": "model", "epochs": 1}
    trainer(data, **options).train()
    assert SpladeEncoder.from_pretrained(data / "again", "cpu").query_weights is None
    left = {path.name for path in (data / "again").iterdir()}
    assert "notes.txt" in left and not left & {"query_idf", "router_config.json"}
    assert "Router" not in (data / "again" / "modules.json").read_text()


@pytest.mark.parametrize("best_by", ["loss", "nDCG@10"])
def test_the_best_epoch_on_the_validation_examples_is_kept(data, best_by):
    training = trainer(data, epochs=3, learning_rate=1e-3, best_by=best_by)
    saved = {}
    save = SpladeEncoder.save_pretrained

    def remember(self, folder):
        save(self, folder)
        saved[str(folder)] = load_file(os.path.join(folder, "model.safetensors"))

    def losses(self, *arguments, **options):
        return torch.tensor([2.0, 1.0, 3.0][round(self.state.epoch) - 1]), None, None

    metrics = iter([0.5, 0.6, 0.9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpladeEncoder, "save_pretrained", remember)
        patch.setattr(EncoderTrainer, "prediction_step", losses)
        patch.setattr("utils.training.trainer.run_model", lambda *arguments: model_run(next(metrics)))
        patch.setattr("utils.training.selection.run_model", lambda *arguments: model_run(0.1))
        training.train()
    best = {"loss": 2, "nDCG@10": 3}[best_by]
    checkpoints = sorted((name for name in saved if "checkpoint-" in name), key=lambda name: int(name.rsplit("-")[-1]))
    final, kept = saved[str(data / "model")], saved[checkpoints[best - 1]]
    assert all(torch.equal(final[name], kept[name]) for name in kept)
    assert SpladeEncoder.from_pretrained(data / "model", "cpu").training_notes["best_epoch"] == best
    assert training.selection["nDCG@10"]["tuned"] == training.history[best - 1]["val_nDCG@10"]


def test_an_epoch_off_its_target_is_not_the_best(data):
    epochs = iter([(0.9, 60, 30), (0.7, 54, 21), (0.8, 51, 28), (0.6, 49, 19)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.trainer.run_model", lambda *arguments: model_run(*next(epochs)))
        trainer(data, epochs=4, target_doc_terms=50, target_query_terms=20, best_by="nDCG@10").train()
    assert SpladeEncoder.from_pretrained(data / "model", "cpu").training_notes["best_epoch"] == 2


def test_training_stops_early_without_a_better_epoch(data):
    metrics = iter([0.5, 0.6, 0.6, 0.5, 0.9])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.trainer.run_model", lambda *arguments: model_run(next(metrics)))
        history = trainer(data, epochs=5, early_stopping_patience=2, best_by="nDCG@10").train()
    assert len(history) == 4


def test_a_training_that_stopped_early_and_was_not_written_is_written_when_it_is_resumed(data):
    metrics = iter([0.5, 0.4])
    options = {"epochs": 5, "early_stopping_patience": 1, "best_by": "nDCG@10"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.trainer.run_model", lambda *arguments: model_run(next(metrics)))
        with patch.context() as full:
            full.setattr("train_splade.write_json", fill_disk)
            with pytest.raises(OSError, match="No space left"):
                trainer(data, **options).train()
        (data / "model").rename(data / "moved")
        history = trainer(data, **options, output_dir=data / "moved", resume=True).train()
    assert len(history) == 2
    assert SpladeEncoder.from_pretrained(data / "moved", "cpu").training_notes["best_epoch"] == 1


def fill_disk(path, value):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def stop_at(patch, step):
    """Let a training be interrupted in the middle of the step after `step` steps."""

    def training_step(self, *arguments):
        loss = STEP(self, *arguments)
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return loss

    patch.setattr(EncoderTrainer, "training_step", training_step)


EXACT = {"epochs": 2, "val_file": None, "batch_size": 6, "dropout": 0.1, "learning_rate": 1e-4,
         "precision": "float32", "threads": 1, "target_doc_terms": 60}  # fmt: skip
STOPPED_AT = [  # after so many steps, of 3 an epoch
    (1, {"target_query_terms": 20}),  # before the first checkpoint
    (2, {"query_encoder": "idf", "checkpoint_minutes": 0}),
]


def assert_same_training(first, second):
    for file in first.rglob("*.safetensors"):
        weights = load_file(file), load_file(second / file.relative_to(first))
        for name in weights[0]:
            assert torch.equal(weights[0][name], weights[1][name]), name
    histories = [json.loads((folder / "training_history.json").read_text())["epochs"] for folder in (first, second)]
    assert [{**record, "seconds": 0} for record in histories[0]] == [
        {**record, "seconds": 0} for record in histories[1]
    ]


def cut_out_examples(passages):
    """Three queries cut out of each passage."""
    parts = ["how the {} works", "where the {} is", "what the {} costs"]
    return [
        {
            "query": query.format(topic),
            "positive_document": f"Page {i} says " + " and ".join(p.format(topic) for p in parts if p != query) + ".",
            "positive_id": f"{topic}-{i}",
            "query_type": "sentence",
        }
        for i, topic in zip(range(passages), TOPICS * 8)
        for query in parts
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("step", "extra"), [*STOPPED_AT, (2, {"cut_out": True, "checkpoint_minutes": 0})], ids=str)
def test_an_interrupted_training_resumes_to_the_same_weights(data, step, extra, capsys):
    options = EXACT | extra
    if options.pop("cut_out", False):
        (data / "training_data.json").write_text(json.dumps(cut_out_examples(8)))
    trainer(data, **options, output_dir=data / "whole").train()
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            trainer(data, **options).train()
    capsys.readouterr()
    trainer(data, **options, resume=True).train()
    assert ("nothing to resume" in capsys.readouterr().out) == (step == 1)
    assert_same_training(data / "whole", data / "model")


@pytest.mark.slow
@pytest.mark.parametrize("extra", [{}, {"lora_rank": 4, "checkpoint_minutes": 0}], ids=str)
def test_a_call_after_an_interrupted_one_resumes_where_that_was_asked_for(data, extra):
    options = EXACT | extra
    trainer(data, **options, output_dir=data / "whole").train()
    first, second = trainer(data, **options), trainer(data, **options, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            first.train()
        with pytest.raises(ValueError, match="holds an interrupted training; go on by `resume=True`"):
            first.train()
        with pytest.raises(KeyboardInterrupt):
            second.train()
    second.train()
    assert_same_training(data / "whole", data / "model")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            second.train()
    assert len(second.train()) == 2


def test_a_training_whose_checkpoints_were_being_removed_has_ended(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)  # as if killed before it
        trainer(data, epochs=1).train()
    assert list((data / "model" / "checkpoints").iterdir())
    with pytest.raises(ValueError, match="the training of this model has ended"):
        trainer(data, epochs=1, resume=True)
    trainer(data, epochs=1).train()
    assert not (data / "model" / "checkpoints").exists()


KILLED = """
import os, sys
import train_splade
from utils.training.trainer import EncoderTrainer
step = EncoderTrainer.training_step
def die(self, *arguments):
    if self.state.global_step == 4:
        os.kill(os.getpid(), 9)
    return step(self, *arguments)
EncoderTrainer.training_step = die
sys.argv = ["train_splade.py", *sys.argv[1:]]
train_splade.main(train_splade.parse_args())
"""


@pytest.mark.slow
def test_a_training_killed_within_an_epoch_resumes_to_the_same_weights(data):
    options = ["--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--batch-size", 6,
               "--device", "cpu", "--precision", "float32", "--threads", 1, "--dropout", 0.1, "--teacher", "bm25",
               "--refresh-negatives", 2, "--checkpoint-minutes", 0, "--epochs", 2]  # fmt: skip
    assert run(SCRIPT, *options, "--output-dir", data / "whole").returncode == 0
    killed = [*options, "--output-dir", data / "killed"]
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, killed)], cwd=ROOT, capture_output=True)
    assert done.returncode == -9, done.stderr
    fails_with_one_line(run(SCRIPT, *killed), "--resume")
    done = run(SCRIPT, *killed, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_training(data / "whole", data / "killed")


def test_resuming_looks_at_the_examples_and_not_at_where_they_are(data):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            trainer(data, checkpoint_minutes=0).train()
    with pytest.raises(ValueError, match="epochs 2, not 9"):
        trainer(data, epochs=9, resume=True)
    file = data / "training_data.json"
    file.rename(data / "moved.json")
    file.write_text(json.dumps(examples(15)))
    with pytest.raises(ValueError, match="trained on other examples than train_file holds now"):
        trainer(data, resume=True)
    with pytest.raises(ValueError, match="trained on other examples than val_file holds now"):
        trainer(data, train_file=data / "moved.json", val_file=None, resume=True)
    assert len(trainer(data, train_file=data / "moved.json", resume=True).train()) == 2


def test_a_training_that_has_ended_is_not_begun_anew_by_resuming_it(data):
    trainer(data, epochs=1).train()
    before = (data / "model" / "model.safetensors").read_bytes()
    options = ["--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--device", "cpu"]
    for epochs in (1, 2):
        done = run(SCRIPT, *options, "--output-dir", data / "model", "--resume", "--epochs", epochs)
        fails_with_one_line(done, "nothing to resume", "has ended")
    assert (data / "model" / "model.safetensors").read_bytes() == before


def test_a_second_call_after_resuming_trains_further(data):
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            trainer(data, epochs=1, checkpoint_minutes=0).train()
    resumed = trainer(data, epochs=1, checkpoint_minutes=0, resume=True)
    assert len(resumed.train()) == len(resumed.train()) == 1


def test_steps_are_told_now_and_then_where_no_progress_bar_is_shown(data, capsys, monkeypatch):
    monkeypatch.setattr("utils.console.LINE_SECONDS", 0)
    trainer(data, epochs=1, val_file=None).train()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("training: ")]
    assert any("1/2" in line and "doc terms" in line for line in lines)


@pytest.mark.parametrize("validated", [True, False])
def test_a_full_disk_leaves_the_checkpoint_before(data, validated):
    options = {"epochs": 3, "val_file": data / "validation_data.json" if validated else None}
    write, written = checkpoints.write_json, []

    def fill(path, value):
        if len(written) == 1:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write(path, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "write_json", fill)
        with pytest.raises(OSError, match="No space left"):
            trainer(data, **options).train()
    history = trainer(data, **options, resume=True).train()
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert SpladeEncoder.from_pretrained(data / "model", "cpu").encode(["engine"])


def test_no_more_checkpoints_are_kept_than_the_last_and_the_best(data):
    metrics, seen = iter([0.9, 0.5, 0.6, 0.7]), []
    save = EncoderTrainer._save_checkpoint

    def count(self, *arguments):
        save(self, *arguments)
        seen.append(sorted(int(p.name.rpartition("-")[2]) for p in (data / "model" / "checkpoints").iterdir()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.training.trainer.run_model", lambda *arguments: model_run(next(metrics)))
        patch.setattr(EncoderTrainer, "_save_checkpoint", count)
        trainer(data, epochs=4, batch_size=16, best_by="nDCG@10").train()
    assert seen == [[1], [1, 2], [1, 3], [1, 4]]


def test_a_checkpoint_that_was_not_written_whole_is_not_resumed(data):
    (data / "model" / "checkpoints" / "checkpoint-7").mkdir(parents=True)
    assert len(trainer(data, resume=True).train()) == 2


LESS_MEMORY = [
    {"micro_batch_size": 1},
    {"micro_batch_size": 5, "query_encoder": "idf"},
    {"gradient_checkpointing": True},
]


@pytest.mark.parametrize("options", LESS_MEMORY, ids=str)
def test_the_gradient_with_less_memory_is_that_of_one_pass(data, options):
    gradients = []
    same = {"query_encoder": options.get("query_encoder")}
    for extra in (same, options):
        training = trainer(data, batch_size=16, epochs=1, precision="float32", **extra)
        seen = {}

        def remember(self, model, inputs, *arguments, seen=seen):
            loss = STEP(self, model, inputs, *arguments)
            seen |= {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            return loss

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(EncoderTrainer, "training_step", remember)
            training.train()
        gradients.append(seen)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, rtol=1e-4, atol=1e-6 + 1e-5 * gradient.abs().max().item()
        )


def total_norm(tensors):
    return torch.stack([tensor.norm() for tensor in tensors.values()]).norm()


def test_a_batch_that_does_not_fit_the_memory_goes_in_parts(data):
    """The memory is played: more than 7 texts at a time are refused."""
    forward, sizes = SpladeEncoder.forward, []

    def refuse(self, input_ids, attention_mask, **options):
        sizes.append(sum(len(part) for part in input_ids))
        if sizes[-1] > 7 and self.training:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8.52 GB)")
        return forward(self, input_ids, attention_mask, **options)

    options = {"batch_size": 16, "epochs": 1, "precision": "float32", "val_file": None}
    trainer(data, **options).train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpladeEncoder, "forward", refuse)
        trainer(data, **options, output_dir=data / "little").train()
    assert sizes[:4] == [48, 24, 12, 6] and set(sizes[3:]) == {6}
    whole, parts = (load_file(data / name / "model.safetensors") for name in ("model", "little"))
    before = load_file(os.path.join(resolve_model("splade-tiny"), "model.safetensors"))
    # Over all weights: Adam makes steps of the rounding where a gradient is 0, as that of a key's bias.
    moved, apart = (
        {name: own[name] - other[name] for name in whole} for own, other in ((whole, before), (parts, whole))
    )
    assert total_norm(apart) < 0.01 * total_norm(moved)


def test_adapters_alone_are_trained_and_the_saved_model_is_a_plain_one(data):
    options = {"lora_rank": 4, "learning_rate": 1e-2, "precision": "float32"}
    training = trainer(data, **options, epochs=3)
    sizes, files = [], []
    save = EncoderTrainer._save

    def remember(self, folder, *arguments):
        sizes[:] = [(part.numel(), part.requires_grad) for part in self.model.parameters()]
        save(self, folder, *arguments)
        tuned = SpladeEncoder.from_pretrained(folder, "cpu", precision="float32").eval()
        files.append((tuned.encode(["an engine"])[0], self.model.eval().encode(["an engine"])[0]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTrainer, "_save", remember)
        training.train()
    assert len(files) == 3
    assert sum(size for size, trained in sizes if trained) < 0.02 * sum(size for size, _ in sizes)
    for merged, adapted in files:
        assert merged.indices.tolist() == adapted.indices.tolist() != []
        torch.testing.assert_close(torch.from_numpy(merged.values), torch.from_numpy(adapted.values))
    before = load_file(os.path.join(resolve_model("splade-tiny"), "model.safetensors"))
    after = load_file(data / "model" / "model.safetensors")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.rpartition(".")[2] for name in changed} <= {"weight", "bias"} and after.keys() <= before.keys()
    assert any("query.weight" in name for name in changed) and not any("embeddings" in name for name in changed)
    assert training.encoder.encode(["an engine"])[0].values.tolist() == pytest.approx(
        SpladeEncoder.from_pretrained(data / "model", "cpu", precision="float32")
        .encode(["an engine"])[0]
        .values.tolist()
    )


def test_a_call_after_one_that_ended_before_its_first_step_trains_adapters(data):
    training = trainer(data, lora_rank=4, epochs=1, val_file=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train_splade.tokenize_examples", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            training.train()
    assert len(training.train()) == 1


def raise_interrupt(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("error:Already found a `peft_config`")
@pytest.mark.parametrize("val_file", [None, "validation_data.json"])
def test_adapters_are_trained_again_by_a_second_call(data, val_file, monkeypatch):
    monkeypatch.chdir(data)
    options = {"lora_rank": 4, "learning_rate": 1e-2, "precision": "float32", "epochs": 1, "val_file": val_file}
    training = trainer(data, **options)
    training.train()
    before = {name: part.clone() for name, part in training.encoder.model.state_dict().items()}
    training.train()
    after = training.encoder.model.state_dict()
    assert before.keys() == after.keys()
    assert any("query.weight" in name and not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kept", ["tuned", "untuned"])
def test_queries_are_encoded_by_the_weights_that_are_kept_after_adapters_too(data, kept, monkeypatch):
    better = {"tuned": 1.0, "untuned": 0.0}[kept]
    monkeypatch.setattr("utils.training.trainer.run_model", lambda *arguments: model_run(better))
    others = iter([0.0, 1 - better])  # the average and the untuned model
    monkeypatch.setattr("utils.training.selection.run_model", lambda *arguments: model_run(next(others)))
    training = trainer(data, lora_rank=4, learning_rate=1e-2, precision="float32", epochs=1)
    training.train()
    assert training.selection["kept"] == kept
    written = SpladeEncoder.from_pretrained(data / "model", "cpu", precision="float32")
    query, expected = (model.encode_query("the engine of the page") for model in (training.encoder, written))
    assert query.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(query.values, expected.values, rtol=1e-3)


def test_the_curves_and_the_logs_are_left_behind(data):
    (data / "model" / "runs").mkdir(parents=True)
    (data / "model" / "runs" / "events.of.an.earlier.model").write_text("")
    trainer(data, epochs=2).train()
    assert len(list((data / "model" / "runs").iterdir())) == 1
    picture = (data / "model" / "training_curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    events = EventAccumulator(str(data / "model" / "runs")).Reload()
    assert {"train/loss", "train/doc_terms", "train/query_terms", "eval/nDCG@10"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/doc_terms")] == [1, 2, 3, 4]


def test_examples_without_a_comparison_are_told(data, capsys):
    rows = [row | {"negative_documents": []} for row in examples()]
    (data / "training_data.json").write_text(json.dumps([*examples(2), *rows[2:]]))
    (data / "validation_data.json").write_text(json.dumps(rows[:1]))
    assert not trainer(data, batch_size=1).validation
    told = capsys.readouterr().out
    assert "14 of 16 examples have no negative_documents, and a step has one query" in told
    assert "no validation: " in told and "1 of 1 examples" in told
    assert trainer(data, best_by="nDCG@10").validation and not capsys.readouterr().out


def test_training_and_validation_losses_are_the_same_sum(data):
    (data / "validation_data.json").write_text(json.dumps(examples()))
    options = {"learning_rate": 1e-30, "lambda_d": 0.1, "lambda_q": 0.1, "epochs": 2, "batch_size": 16}
    for record in trainer(data, **options, precision="float32").train():
        assert record["loss"] == pytest.approx(record["val_loss"], rel=1e-5)


def test_a_training_of_one_step_trains(data):
    trainer(data, epochs=1, batch_size=16, val_file=None).train()
    before = load_file(os.path.join(resolve_model("splade-tiny"), "model.safetensors"))
    after = load_file(data / "model" / "model.safetensors")
    # AdamW's first step changes a weight by about the learning rate.
    assert max((after[name] - before[name]).abs().max() for name in after).item() == pytest.approx(5e-5, rel=0.1)


def test_batch_sizes_follow_their_schedule(data):
    sizes = []

    def remember(self, model, inputs, *arguments):
        sizes.append(len(inputs["examples"]))
        return STEP(self, model, inputs, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTrainer, "training_step", remember)
        done = run(SCRIPT, "--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--epochs", 2,
                   "--output-dir", data / "model", "--device", "cpu", "--batch-size-schedule", 4, 8)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sizes == [4] * 4 + [8] * 2


MANY = [
    [],
    ["--micro-batch-size", "7", "--loss", "contrastive", "kl"],
    ["--query-encoder", "idf", "--teacher", "bm25"],
]


@pytest.mark.slow
@pytest.mark.parametrize("extra", [*MANY, [*MANY[2], "--micro-batch-size", "7"]], ids=" ".join)
def test_two_processes_train_as_one_with_twice_the_batch(data, extra):
    rows = [row | {"scores": [5.0, 1.0]} for row in examples(32)]
    for row, other in itertools.pairwise(rows):  # a negative is another row's positive
        row["negative_documents"][0] = other["positive_document"]
    for row in rows[::3]:  # processes with different numbers of negatives
        row["negative_documents"].append("A third page, about nothing.")
        row["scores"].append(0.0)
    (data / "training_data.json").write_text(json.dumps(rows))
    (data / "validation_data.json").write_text(json.dumps(rows[:6]))
    options = ["--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--device", "cpu"]
    options += ["--threads", "1", "--precision", "float32", "--learning-rate", "2e-4", *extra]
    assert run(SCRIPT, *options, "--output-dir", data / "one", "--batch-size", "16").returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    command += [*options, "--output-dir", data / "two", "--batch-size", "8"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 1 ") == 1
    one, two = (load_file(data / name / "model.safetensors") for name in ("one", "two"))
    before = load_file(os.path.join(resolve_model("splade-tiny"), "model.safetensors"))
    assert max((one[name] - before[name]).abs().max() for name in one) > 1e-4
    for name in one:  # AdamW brings a gradient of rounding errors to the size of others: of millions, one may be off
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=3e-5)


def test_a_part_has_the_same_dropout_in_both_of_its_passes(data):
    training = trainer(data, micro_batch_size=5, batch_size=16, epochs=1, dropout=0.5)
    passes, whole = [], []
    forward = SpladeEncoder.forward

    def remember(self, *arguments, **options):
        if not passes:
            whole.append(forward(self.eval(), *arguments, **options))
            self.train()
        passes.append(forward(self, *arguments, **options))
        return passes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpladeEncoder, "forward", remember)
        training.train()
    parts = 10  # 48 texts, 5 at a time
    for first, second in zip(passes[:parts], passes[parts : 2 * parts], strict=True):
        torch.testing.assert_close(first, second.detach())
    assert not torch.allclose(passes[0], whole[0], atol=0.1)  # which dropout changed


def test_a_teachers_scores_are_learned_from(data):
    rows = [row | {"scores": [5.0, 1.0]} for row in examples()]
    for name in ("training_data.json", "validation_data.json"):
        (data / name).write_text(json.dumps(rows))
    history = trainer(data, loss=["kl=0.5", "margin-mse=0.5"], epochs=12, learning_rate=3e-4).train()
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_a_teachers_view_of_the_batch_is_learned(data):
    options = {"teacher": ["minilm", "bm25=0.5"], "loss": ["kl-batch"], "learning_rate": 1e-3}
    training = trainer(data, **options, epochs=8, batch_size=8)
    history = training.train()
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    scores = training.objective.teacher(np.arange(3), np.arange(5))
    teacher = training.objective.teacher.scorer
    expected = teacher.block_scores(np.arange(3), np.arange(5)) * 2 / teacher.deviation
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    both = trainer(data, teacher=["bm25"], language="German", output_dir=data / "both")
    assert both.settings.language == "de"
    both.train()
    notes = SpladeEncoder.from_pretrained(data / "both", "cpu").training_notes
    assert notes["loss"] == ["contrastive=0.5", "kl-batch=0.5"] and notes["teacher"] == ["bm25"]  # queries of no type


def test_queries_cut_out_of_the_documents_are_taught_by_the_model_as_it_comes_and_bm25(data):
    rows = [{**row, "query_type": "sentence"} for row in examples(16)]
    (data / "training_data.json").write_text(json.dumps(rows))
    training = trainer(data, epochs=1, batch_size=8)
    training.train()
    assert training.objective.weights == {"kl-batch": 1.0}
    scorer = training.objective.teacher.scorer
    assert [part.name for part in scorer.scorers] == ["untuned", "bm25"]
    untuned = SpladeEncoder.from_pretrained("splade-tiny", "cpu")
    query = untuned.encode_query(rows[0]["query"])
    expected = np.zeros(untuned.vocabulary_size, np.float32)
    expected[query.indices] = query.values
    np.testing.assert_allclose(scorer.scorers[0].queries[[0]].toarray()[0], expected, rtol=0.05, atol=0.05)


@pytest.mark.slow
def test_of_queries_of_other_documents_it_is_said_that_what_tuning_gained_may_be_chance(tmp_path):
    rng = random.Random(1)
    letters = "bdfgklmnprstvz", "aeiou"
    words = ["".join(map(rng.choice, letters * rng.randint(1, 3))) for _ in range(400)]
    (tmp_path / "docs").mkdir()
    for i in range(60):
        sentences = [" ".join(rng.choices(words, k=12)).capitalize() for _ in range(6)]
        (tmp_path / "docs" / f"{i}.txt").write_text(". ".join(sentences) + ".")
    train_file = tmp_path / "training_data.json"
    source = "--input-dir", tmp_path / "docs", "--output-file", train_file
    assert run("generate_training_data.py", *source, "--split", "50/50").returncode == 0
    for path in (train_file, tmp_path / "validation_data.json"):
        rows = json.loads(path.read_text())
        parts = [{name: value for name, value in row.items() if name.startswith("positive_")} for row in rows]
        rng.shuffle(parts)
        path.write_text(json.dumps([row | part for row, part in zip(rows, parts)]))
    options = "--model-name", "splade-tiny", "--epochs", "1", "--device", "cpu"
    done = run(SCRIPT, *options, "--train-file", train_file, "--output-dir", tmp_path / "model")
    kept = next(line for line in done.stdout.splitlines() if line.startswith("kept "))
    assert "tuning gained nothing" in kept or "which may be chance" in kept


def test_a_model_that_makes_no_sparse_vectors_yet_is_trained_without_a_teacher(data, tmp_path):
    config = BertConfig(vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    BertForMaskedLM(config).save_pretrained(tmp_path / "plain")
    AutoTokenizer.from_pretrained(resolve_model("splade-tiny")).save_pretrained(tmp_path / "plain")
    rows = [{**row, "query_type": "sentence"} for row in examples(16)]
    (data / "training_data.json").write_text(json.dumps(rows))
    training = trainer(data, model_name=tmp_path / "plain", epochs=1)
    training.train()
    assert training.objective.weights == {"contrastive": 1.0} and training.objective.teacher is None
    assert training.selection["kept"] == "tuned" and "over_untuned" not in training.selection


def test_a_cross_encoder_does_not_teach_batches(data, cross_encoder):
    with pytest.raises(ValueError, match="is a cross-encoder"):
        trainer(data, teacher=[str(cross_encoder)])


def test_negatives_are_mined_again_before_each_epoch_but_the_first(data):
    (data / "training_data.json").write_text(json.dumps([row | {"scores": [2.0, 1.0]} for row in examples(40)]))
    seen, refreshed, texts, key_of = [], [], [], {}

    def remember(self, model, inputs, *arguments):
        if not seen:
            key_of.update(pair for example in self.train_dataset for pair in zip(example.texts, example.keys))
        if self.state.global_step % len(self.batches) == 0:
            refreshed[:], texts[:] = self.train_dataset, self.refresh.documents
            seen.append([list(example.document_indices) for example in refreshed])
        return STEP(self, model, inputs, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderTrainer, "training_step", remember)
        trainer(data, refresh_negatives=3, epochs=3).train()
    assert [len(indices) for indices in seen[0]] == [2] * 40  # as in the file
    assert seen[0] != seen[1] != seen[2]
    for example, first in zip(refreshed, seen[0]):
        assert len(example.document_indices) == 4 and example.document_indices[0] == first[0]
        assert len(example.documents) == 4 and example.texts[0] not in example.texts[1:]
        assert example.keys == [key_of[text] for text in example.texts]
        assert [texts[index] for index in example.document_indices] == example.texts


def test_texts_that_the_limits_cut_are_counted(data):
    done = run(SCRIPT, "--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--epochs", "1",
               "--output-dir", data / "model", "--device", "cpu", "--max-length", "14")  # fmt: skip
    assert "16 of 32 documents are longer than 14 tokens and are cut there" in done.stdout
    assert "queries are longer" not in done.stdout


def test_refreshed_negatives_need_more_documents_than_are_left_out(data):
    (data / "training_data.json").write_text(json.dumps(examples(4)))
    with pytest.raises(ValueError, match=r"refresh_negatives: 8 documents are too few"):
        trainer(data, refresh_negatives=2, loss=["contrastive"], val_file=None).train()


@pytest.fixture(scope="module")
def docstrings(tmp_path_factory):
    """Functions of Python's library: what they do as the query, their documentation as the document."""
    rows = {}
    for module in (argparse, calendar, codecs, csv, inspect, locale, math, os, random, shutil, statistics, subprocess):
        for name, part in inspect.getmembers(module, callable):
            summary, _, rest = (inspect.getdoc(part) or "").partition("\n")
            if len(rest.split()) > 12:
                rows[rest] = {"query": f"{name.replace('_', ' ')} {summary}", "positive_document": rest}
    file = tmp_path_factory.mktemp("docstrings") / "training_data.json"
    file.write_text(json.dumps(list(rows.values())[:160]))
    return file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "targets"), [("splade-tiny", (50, 20)), ("splade-tiny", (150, 30)), ("new", (100, 30))]
)
def test_the_number_of_terms_arrives_at_its_target(docstrings, tmp_path, start, targets):
    options = {"epochs": 20, "batch_size": 10, "learning_rate": 1e-4, "max_length": 32, "query_max_length": 16}
    files = {"train_file": docstrings, "val_file": None, "output_dir": tmp_path}
    training = trainer(tmp_path, **options, **files, target_doc_terms=targets[0], target_query_terms=targets[1])
    if start == "new":  # a head that has learned nothing: half of the vocabulary is active
        torch.manual_seed(0)
        projection = training.load().model.get_output_embeddings()
        torch.nn.init.zeros_(projection.bias)
        torch.nn.init.normal_(training.encoder.model.cls.predictions.transform.dense.weight, std=0.02)
    history = training.train()
    if start == "new":
        assert history[0]["doc_terms"] > 400
    found = history[-1]["doc_terms"], history[-1]["query_terms"]
    assert found == (pytest.approx(targets[0], rel=0.1), pytest.approx(targets[1], rel=0.1))


TROUBLE = {
    "a loss that is no number": ({"learning_rate": 1e30}, "the loss is"),
    "empty vectors": ({"lambda_d": 1e4, "lambda_q": 1e4, "learning_rate": 1e-2}, "empty"),
}


@pytest.mark.parametrize(("options", "message"), TROUBLE.values(), ids=TROUBLE.keys())
def test_training_that_goes_wrong_stops_within_a_few_steps(data, options, message):
    training = trainer(data, epochs=50, **options)
    with pytest.raises(ValueError, match=message):
        training.train()
    assert not (data / "model" / "model.safetensors").exists()


def test_vectors_that_become_full_stop_the_training(data):
    training = trainer(data, epochs=4, val_file=None)
    with torch.no_grad():
        training.load().model.get_output_embeddings().bias += 20
    with pytest.raises(ValueError, match=r"active terms of 30522; raise `lambda_d`"):
        training.train()


def test_regularization_makes_vectors_sparser(data):
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


def test_empty_documents_are_skipped_and_counted(data):
    broken = [*examples(4), {"query": "q", "positive_document": " "}, {"query": "", "positive_document": "p"}]
    (data / "training_data.json").write_text(json.dumps(broken))
    done = run(SCRIPT, "--model-name", "splade-tiny", "--train-file", data / "training_data.json", "--epochs", 1,
               "--output-dir", data / "model", "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "skipped 2 examples" in done.stdout and "4 examples, 6 for validation" in done.stdout


def test_the_validation_file_is_the_one_beside_the_training_file(data, tmp_path_factory, monkeypatch, capsys):
    elsewhere = tmp_path_factory.mktemp("another project")
    (elsewhere / "validation_data.json").write_text(json.dumps(examples(3)))
    monkeypatch.chdir(elsewhere)
    assert len(trainer(data, val_file=DEFAULT).validation) == 6
    assert f"validation examples: {data / 'validation_data.json'}" in capsys.readouterr().out
    assert len(trainer(data, val_file="./validation_data.json").validation) == 3
    (data / "validation_data.json").unlink()
    assert len(trainer(data, val_file=DEFAULT).validation) == 3
    assert f"validation examples: {elsewhere / 'validation_data.json'}" in capsys.readouterr().out


def test_the_validation_file_of_another_name_is_the_one_generated_with_the_training_file(data, capsys):
    train_file = (data / "training_data.json").rename(data / "laws.json")
    assert len(trainer(data, train_file=train_file, val_file=DEFAULT).validation) == 6
    assert f"no {data / 'laws_validation.json'}; check that they are of the same run" in capsys.readouterr().out
    (data / "laws_validation.json").write_text(json.dumps(examples(3)))
    assert len(trainer(data, train_file=train_file, val_file=DEFAULT).validation) == 3
    assert f"validation examples: {data / 'laws_validation.json'}\n" in capsys.readouterr().out


def test_a_validation_file_that_is_named_is_the_one_or_an_error(data, monkeypatch):
    (data / "training_data.json").rename(data / "laws.json")
    (data / "laws_validation.json").write_text(json.dumps(examples(3)))
    monkeypatch.chdir(data)
    assert len(trainer(data, train_file="laws.json", val_file="validation_data.json").validation) == 6
    (data / "validation_data.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"validation_data\.json"):
        trainer(data, train_file="laws.json", val_file="validation_data.json")


def test_without_a_validation_file_the_last_epoch_is_kept(data):
    (data / "validation_data.json").unlink()
    history = trainer(data, val_file=DEFAULT).train()
    assert "val_loss" not in history[0] and (data / "model" / "model.safetensors").is_file()


BAD = {
    "batch size 0": (["--batch-size", "0"], "at least 1"),
    "missing file": (["--train-file", "{tmp}/none.json"], "No such file"),
    "missing validation file": (["--val-file", "{tmp}/none.json"], "No such file"),
    "no CUDA here": (["--device", "cuda:9"], "not available here"),
    "unknown device": (["--device", "gpu"], "unknown device"),
    "missing model": (["--model-name", "{tmp}/none"], "no such model folder"),
    "output under a file": (["--output-dir", "{tmp}/training_data.json/model"], "cannot write"),
    "output among other files": (["--output-dir", "{tmp}/own"], "own: has a README.md and is no model; name a new"),
    "negative rate": (["--learning-rate", "-1"], "at least 0"),
    "no rate": (["--learning-rate", "0"], "--learning-rate: Input should be greater than 0, not 0.0"),
    "negative seed": (["--seed", "-1"], "--seed: Input should be greater than or equal to 0, not -1"),
    "no temperature": (["--temperature", "0"], "temperature: Input should be greater than 0, not 0.0"),
    "a teacher's loss without scores": (["--loss", "kl"], "have no field 'scores'"),
    "float16 on the CPU": (["--precision", "float16"], "for cuda and mps"),
    "a target for queries without a model": (["--query-encoder", "idf", "--target-query-terms", "9"], "own tokens"),
    "a teacher without its loss": (["--teacher", "bm25", "--loss", "contrastive"], "name both or none"),
    "a teacher that cannot be had": (["--teacher", "{tmp}/none"], "no such model folder"),
    "unknown language": (["--teacher", "bm25", "--language", "moonish"], "unknown language 'moonish'"),
    "unknown loss": (["--loss", "hinge"], "unknown loss 'hinge'"),
    "too few scores": (["--train-file", "{tmp}/scores.json"], "record 1: holds 1 scores for 2 documents"),
    "positive among negatives": (["--train-file", "{tmp}/self.json"], "record 1: the positive document is among"),
    "batches of one": (["--train-file", "{tmp}/bare.json", "--batch-size", "1"], "16 of 16 examples have no negative"),
    "only empty examples": (["--train-file", "{tmp}/hollow.json"], "every example has an empty"),
    "a teacher's loss without negatives": (["--loss", "kl", "--train-file", "{tmp}/alone.json"], "has negatives"),
    "lambda beside a target": (["--lambda-d", "1e-4", "--target-doc-terms", "50"], "--lambda-d has no effect"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line(data, arguments, message):
    (data / "self.json").write_text('[{"query": "q", "positive_document": "p", "negative_documents": ["p"]}]')
    (data / "scores.json").write_text(json.dumps([examples(1)[0] | {"scores": [1.0]}]))
    (data / "bare.json").write_text(json.dumps([row | {"negative_documents": []} for row in examples()]))
    (data / "hollow.json").write_text('[{"query": "", "positive_document": ""}]')
    (data / "own").mkdir()
    (data / "own" / "README.md").write_text("# mine")
    (data / "alone.json").write_text('[{"query": "q", "positive_document": "p", "scores": [1.0]}]')
    options = {"--model-name": "splade-tiny", "--output-dir": data / "model", "--device": "cpu"}
    options |= {"--train-file": data / "training_data.json"}
    options |= {name: value.format(tmp=data) for name, value in zip(arguments[::2], arguments[1::2])}
    fails_with_one_line(run(SCRIPT, *(part for option in options.items() for part in option)), message)
    assert not (data / "model" / "model.safetensors").exists() and (data / "own" / "README.md").read_text() == "# mine"


def test_a_setting_by_position_is_named_when_it_is_wrong(data):
    with pytest.raises(ValueError, match="learning_rate"):
        SpladeTrainer("splade-tiny", data / "model", data / "training_data.json", None, "fast")


def test_the_defaults_follow_the_width_of_the_model(data):
    training = SpladeTrainer("splade-tiny", data / "model", data / "training_data.json", None, device="cpu", epochs=1)
    assert training.settings.learning_rate == pytest.approx(2.5e-5 * 768 / 128)
    adapted = trainer(data, learning_rate=None, lora_rank=4)
    assert adapted.settings.learning_rate == pytest.approx(5 * training.settings.learning_rate)
    assert len(training.train()) == 1
    settings = json.loads((data / "model" / "training_history.json").read_text())["settings"]
    assert settings["learning_rate"] == training.settings.learning_rate and settings["batch_size"] is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "greater than 0"),
        ("batch_size_schedule", [8, 0], "greater than 0"),
        ("lambda_d", -1, "greater than or equal to 0"),
        ("max_passages", 1, "greater than or equal to 2"),
        ("regulariser", "l0", "'flops' or 'l1'"),
        ("best_by", "MRR", "'loss' or 'nDCG@10'"),
        ("query_encoder", "bm25", "'model' or 'idf'"),
        ("teacher", "minilm", "sequence"),
        ("lerning_rate", 3, "unexpected"),
        ("resume", "junk", "boolean"),
        ("language", "moonish", "unknown language 'moonish'"),
        ("teacher", ["bm25=nan"], "above 0"),
        ("teacher", ["bm25", "bm25"], "twice"),
    ],
)
def test_a_library_call_with_a_bad_setting_raises(data, name, value, message):
    with pytest.raises(ValueError, match=rf"(?i)^(`{name}`|{name}).*{message}"):
        trainer(data, **{name: value})


IDLE = {
    "lambda_d": {"lambda_d": 1e-4, "target_doc_terms": 50},
    "lambda_q": {"lambda_q": 1e-3, "target_query_terms": 20},
    "batch_size": {"batch_size_schedule": [4, 8]},
    "temperature": {"temperature": 2.0, "loss": ["contrastive", "margin"]},
    "regulariser": {"regulariser": "l1", "lambda_d": 0, "lambda_q": 0},
    "refresh_negatives": {"refresh_negatives": 2, "epochs": 1},
    "best_by": {"best_by": "loss", "val_file": None},
    "early_stopping_patience": {"early_stopping_patience": 2},
    "language": {"language": "de", "teacher": ["minilm"]},
}


@pytest.mark.parametrize(("name", "options"), IDLE.items(), ids=IDLE.keys())
def test_a_setting_that_the_others_leave_without_effect_is_refused_by_name(data, name, options):
    with pytest.raises(ValueError, match=rf"^(`{name}`|{name} .*) has no effect"):
        trainer(data, **options)


@pytest.mark.parametrize("options", [{"lambda_q": 1e-3}, {"target_query_terms": 9}], ids=str)
def test_what_makes_queries_sparser_is_refused_where_they_do_not_pass_the_model(data, doc_only, options):
    for more in ({"query_encoder": "idf"}, {"model_name": data / "model"}):
        with pytest.raises(ValueError, match=rf"`{next(iter(options))}` has no effect: .* own tokens"):
            trainer(data, **options, **more, output_dir=data / "new").load()


def test_a_normalization_that_the_model_cannot_lose_is_refused(data):
    encoder = trainer(data, normalize="nfkc-lowercase").load()
    encoder.training_notes = {"normalize": "nfkc-lowercase"}
    encoder.save_pretrained(data / "lowercase")
    for kind in ("none", "nfkc"):
        with pytest.raises(ValueError, match=f"`normalize={kind}` has no effect: .* keeps its nfkc-lowercase"):
            trainer(data, model_name=data / "lowercase", normalize=kind).load()
    trainer(data, model_name=data / "lowercase", normalize="nfkc-lowercase").load()


def test_more_tokens_than_the_model_has_room_for_are_refused_where_they_are_asked_for(data):
    with pytest.raises(ValueError, match=r"`max_length`: 513 tokens are more .* 512"):
        trainer(data, max_length=513).load()
    with pytest.raises(ValueError, match=r"`query_max_length`: 65 tokens are more .* 64"):
        trainer(data, max_length=64, query_max_length=65).load()
    assert trainer(data, max_length=64).load().query_max_length == 64


def test_of_many_passages_some_are_trained_on_and_some_validate(data, monkeypatch, capsys):
    monkeypatch.setattr("train_splade.MAX_PASSAGES", 10)
    monkeypatch.setattr("train_splade.VALIDATION_PASSAGES", 4)
    rows = [row | {"query_type": "keywords"} for row in examples()]
    (data / "training_data.json").write_text(json.dumps(rows))
    contrastive = {"loss": ["contrastive"], "max_passages": 12}
    for options, trained, validated in (({}, 10, 4), (contrastive, 12, 6)):
        training = trainer(data, epochs=1, output_dir=data / str(trained), **options)
        training.train()
        notes = SpladeEncoder.from_pretrained(training.output_dir, "cpu").training_notes
        assert notes["examples"] == trained and training.selection["queries"] == validated
        assert f"training on {trained} examples, of {trained} passages of 16" in capsys.readouterr().out


def test_validation_queries_search_the_nearest_of_the_passages_beside_them(data, monkeypatch):
    positives = [(row["positive_id"], row["positive_document"]) for row in examples(6)]
    near = [(f"near-{topic}", f"The {topic} of another truck, number nine.") for topic in TOPICS[:2]]
    far = [(f"far-{i}", f"Sea and sky are blue on day {i}.") for i in range(9)]
    with (data / "validation_data_corpus.jsonl").open("w") as file:
        for name, text in (*far, *near, *positives):
            file.write(json.dumps({"passage_id": name, "passage": text}) + "\n")
    searched = []

    def remember(collection, *rest):
        searched.append([document.text for document in collection.documents])
        return run_model(collection, *rest)

    monkeypatch.setattr("utils.training.trainer.run_model", remember)
    monkeypatch.setattr("train_splade.VALIDATION_DOCUMENTS", 8)
    trainer(data, epochs=1).train()
    assert searched == [[text for _, text in (*near, *positives)]]
