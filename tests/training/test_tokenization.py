"""Examples as token ids."""

import copy

import numpy as np
import pytest

from utils.records import TrainingExample
from utils.training import tokenization
from utils.training.tokenization import tokenize_examples

ROWS = [
    TrainingExample(query="an engine", positive_document="it burns fuel", negative_documents=["a b", "", "the sea"]),
    TrainingExample(query="", positive_document="no query"),
    TrainingExample(query="waves", positive_document="the sea", positive_id="p", scores=[2.0]),
    TrainingExample(query="an engine", positive_document="one two three four five six", negative_documents=["a b"]),
]


@pytest.fixture
def tokenized(tiny, monkeypatch):
    monkeypatch.setattr(tokenization, "PART_TEXTS", 2)
    return tokenize_examples(ROWS, tiny)


def test_each_text_is_kept_once_as_two_bytes_a_token(tokenized, tiny):
    texts = ["it burns fuel", "a b", "", "the sea", "no query", "one two three four five six"]
    assert tokenized.documents.texts == texts and tokenized.queries.texts == ["an engine", "", "waves"]
    assert tokenized.documents.ids.dtype == np.uint16
    assert [tokenized.documents[number] for number in range(6)] == tiny.tokenize(texts)


def test_the_ids_of_a_large_vocabulary_take_four_bytes(tiny, monkeypatch):
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.add_tokens([f"word{number}" for number in range(2**16 - len(tokenizer))])
    monkeypatch.setattr(tiny, "tokenizer", tokenizer)
    assert tokenize_examples(ROWS, tiny).documents.ids.dtype == np.uint16
    tokenizer.add_tokens(["theseas"])
    further = TrainingExample(query="which", positive_document="theseas")
    tokenized = tokenize_examples([*ROWS, further], tiny)
    assert tokenized.documents.ids.dtype == np.int32
    assert 2**16 in tokenized.documents[tokenized.documents.texts.index("theseas")]


def test_an_example_is_put_together_of_texts_that_have_tokens(tokenized, tiny):
    first, second, third = tokenized
    assert first.texts == ["it burns fuel", "a b", "the sea"] and first.document_indices == [0, 1, 3]
    assert first.keys[2:] == second.keys and first.keys[1] == third.keys[1] and len({*first.keys, *third.keys}) == 4
    assert first.query_key == third.query_key != second.query_key
    assert first.answers == third.answers == sorted([first.keys[0], third.keys[0]])
    assert (
        first.documents == tiny.tokenize(first.texts) and first.query == third.query == tiny.tokenize(["an engine"])[0]
    )
    assert first.scores is None and second.scores == [2.0]
    assert [example.query_index for example in tokenized] == [0, 2, 0] and tokenized.positions.tolist() == [0, 2, 3]


def test_a_part_of_the_examples_counts_the_texts_as_the_whole(tokenized):
    whole = list(tokenized)
    first, second = tokenized.split(2)
    assert list(first) == whole[:1] and list(second) == whole[1:]


def test_other_negatives_take_the_place_of_the_old_ones(tokenized):
    tokenized.set_negatives([[5], [], [0, 1]])
    assert [example.document_indices for example in tokenized] == [[0, 5], [3], [5, 0, 1]]
    assert [example.scores for example in tokenized] == [None] * 3
    assert tokenized[2].texts == ["one two three four five six", "it burns fuel", "a b"]


def test_texts_that_are_cut_are_counted_as_they_are_tokenized(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "max_length", 5)
    texts = ["one two three", "one two three four", "one", "one two three four five six seven"]
    found = tokenize_examples([TrainingExample(query="q", positive_document=text) for text in texts], tiny)
    assert found.documents.truncated == 2 and found.queries.truncated == 0
    assert [len(example.documents[0]) for example in found] == [5, 5, 3, 5]
