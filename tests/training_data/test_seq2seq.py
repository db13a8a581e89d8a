"""Queries by a local sequence-to-sequence model: T5 with random weights, since no trained one installs as a package."""

import pytest
import torch
from conftest import fails_with_one_line, run
from transformers import T5Config, T5ForConditionalGeneration

from utils.journal import Journal
from utils.models import load_masked_lm
from utils.records import Chunk, read_examples
from utils.training_data.seq2seq import BATCH_PASSAGES, seq2seq_examples


@pytest.fixture(scope="module")
def doc2query(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doc2query") / "t5"
    tokenizer = load_masked_lm("splade-tiny")[1]
    size = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(decoder_start_token_id=tokenizer.pad_token_id, **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def chunks():
    return [
        Chunk(id=f"{i}#0", document_id=str(i), title="Pumps", text=f"Pump {i} lifts water. " * (i + 1))
        for i in range(20)
    ]


def test_each_passage_gets_distinct_queries_that_depend_on_the_seed_alone(doc2query, chunks, tmp_path):
    runs = [seq2seq_examples(chunks, str(doc2query), 3, 42, Journal(tmp_path / name, {}), "cpu") for name in ("a", "b")]
    assert runs[0] == runs[1] and {e.query_type for e in runs[0]} == {"seq2seq"}
    by_passage = {}
    for example in runs[0]:
        by_passage.setdefault(example.positive_id, []).append(example.query)
    assert by_passage.keys() == {chunk.id for chunk in chunks}
    assert all(1 <= len(queries) == len(set(queries)) <= 3 for queries in by_passage.values())
    other = seq2seq_examples(chunks, str(doc2query), 3, 43, Journal(tmp_path / "c", {}), "cpu")
    assert [e.query for e in other] != [e.query for e in runs[0]]


def test_a_resumed_run_continues_after_the_last_journaled_batch(doc2query, chunks, tmp_path, monkeypatch):
    whole = seq2seq_examples(chunks, str(doc2query), 2, 1, Journal(tmp_path / "whole", {}), "cpu")
    seq2seq_examples(chunks[:BATCH_PASSAGES], str(doc2query), 2, 1, Journal(tmp_path / "part", {}), "cpu")
    batch_sizes = []
    generate = T5ForConditionalGeneration.generate
    monkeypatch.setattr(
        T5ForConditionalGeneration,
        "generate",
        lambda self, **options: batch_sizes.append(len(options["input_ids"])) or generate(self, **options),
    )
    assert seq2seq_examples(chunks, str(doc2query), 2, 1, Journal(tmp_path / "part", {}, resume=True), "cpu") == whole
    assert batch_sizes == [len(chunks) - BATCH_PASSAGES]


def test_the_script_generates_queries_and_refuses_other_models(doc2query, docs, tmp_path):
    out = tmp_path / "training_data.json"
    options = ["--input-dir", docs, "--output-file", out, "--generator", "seq2seq", "--device", "cpu"]
    done = run("generate_training_data.py", *options, "--seq2seq-model", doc2query)
    assert done.returncode == 0, done.stderr
    assert {e.query_type for e in read_examples(out)} == {"seq2seq"}
    fails_with_one_line(run("generate_training_data.py", *options, "--seq2seq-model", doc2query), "--resume")
    wrong = run(
        "generate_training_data.py", *options, "--seq2seq-model", "splade-tiny", "--output-file", tmp_path / "o.json"
    )
    fails_with_one_line(wrong, "cannot load model 'splade-tiny' as a sequence-to-sequence model")
