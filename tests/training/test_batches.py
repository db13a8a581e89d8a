"""Batches of training examples."""

import itertools

import pytest
import torch

from utils.records import TrainingExample
from utils.training.batches import StepBatchSampler, collate, gather_step
from utils.training.tokenization import tokenize_examples


def step(examples, encoder, micro_batch=None, count=None):
    """The step of a batch of the first `count` examples, whose texts' weights are their own numbers of tokens."""
    batch = collate(list(tokenize_examples(examples, encoder))[:count], encoder, micro_batch)
    lengths = [mask.sum(1) for part in batch["texts"] for mask in part["attention_mask"]]
    return gather_step(torch.cat(lengths)[:, None].float(), batch)


def test_other_examples_of_the_same_positive_are_masked(tiny):
    rows = [("a", "p1", "one"), ("b", "p1", "one without a word"), ("c", "p2", "two")]
    made = [TrainingExample(query=q, positive_id=i, positive_document=text) for q, i, text in rows]
    assert step(made, tiny).false_negatives.tolist() == [[False, True, False], [True, False, False], [False] * 3]


@pytest.mark.parametrize("name", [None, "p3"])
@pytest.mark.parametrize("negative", ["third text", " Third\ntext"])
def test_a_negative_that_is_another_querys_positive_is_masked_for_it(tiny, name, negative):
    made = [
        TrainingExample(query="a", positive_document="first text", positive_id="p1", negative_documents=[negative, ""]),
        TrainingExample(query="b", positive_document="third text", positive_id=name),
    ]
    assert step(made, tiny).false_negatives.tolist() == [[False, False, False], [False, False, True]]


def test_a_negative_that_is_another_part_of_the_querys_passage_is_masked_for_it(tiny):
    made = [
        TrainingExample(query="a", positive_document="first text", positive_id="p1", negative_documents=["its rest"]),
        TrainingExample(query="b", positive_document="its end", positive_id="p2"),
        TrainingExample(query="c", positive_document="its rest", positive_id="p2"),
    ]
    assert step(made, tiny, count=2).false_negatives.tolist() == [[False, False, False], [False, False, True]]


def test_rows_of_one_query_are_no_negatives_of_each_other(tiny):
    made = [
        TrainingExample(query="a b", positive_document="first", positive_id="p1"),
        TrainingExample(query="A  b", positive_document="second", positive_id="p2"),
        TrainingExample(query="c", positive_document="third", negative_documents=["Fourth"]),
        TrainingExample(query="a b", positive_document="fourth"),
    ]
    both = [[False, True, False, True], [True, False, False, True], [False] * 4]
    assert step(made, tiny, count=3).false_negatives.tolist() == both


def test_texts_come_back_in_order_with_their_scores(tiny):
    made = [
        TrainingExample(
            query="a b", positive_document="a b c", negative_documents=["a", "", "a b c d"], scores=[9, 3, 4, 5]
        ),
        TrainingExample(query="a", positive_document="a b c d e", scores=[7]),
        TrainingExample(query="a b c", positive_document="a b", negative_documents=["a b c d e f"], scores=[8, 1]),
    ]
    for micro_batch in (None, 1, 2, 4):
        found = step(made, tiny, micro_batch)
        assert (found.queries[:, 0] - 2).tolist() == [2, 1, 3]
        assert (found.documents[:, 0] - 2).tolist() == [3, 5, 2, 1, 4, 6]  # positives, then negatives
        assert (
            found.own_documents.tolist()[0] == [0, 3, 4]
            and found.own_documents[1, 0] == 1
            and found.own_documents.tolist()[2][:2] == [2, 5]
        )
        inf = float("-inf")
        assert found.teacher.tolist() == [[9, 3, 5], [7, inf, inf], [8, 1, inf]]


def different(count):
    """Keys of examples that have no text in common."""
    return [(number, number) for number in range(count)]


def test_every_pass_has_each_row_once_and_all_batches_are_full():
    batches = StepBatchSampler(different(10), [4], epochs=2, seed=3)
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        seen += list(batches)
    rows = [row for batch in seen for row in batch]
    assert [len(batch) for batch in seen] == [4] * 2 * len(batches) and len(batches) == 3
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10)) and rows[:10] != rows[10:20]
    assert all(len(set(batch)) == 4 for batch in seen)  # where two passes meet, too
    batches.set_epoch(1)
    assert list(batches) == seen[3:]


@pytest.mark.parametrize("seed", range(5))
def test_no_batch_has_a_query_or_a_document_twice(seed):
    texts = [(row if row % 2 else row // 4, row // 4 if row % 2 else row) for row in range(60)]
    batches = StepBatchSampler(texts, [6, 10], epochs=3, seed=seed)
    seen = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        seen += list(batches)
    for batch in seen:
        for keys in zip(*(texts[row] for row in batch)):
            assert len(set(keys)) == len(batch)
    counts = [list(itertools.chain(*seen)).count(row) for row in range(60)]
    assert min(counts) >= 2 and max(counts) <= 4


def test_batches_are_full_where_repeated_texts_cannot_be_avoided():
    texts = [(row, max(0, row - 36)) for row in range(40)]  # all but three have the same document
    batches = list(StepBatchSampler(texts, [8], epochs=1, seed=0))
    assert [len(set(batch)) for batch in batches] == [8] * 5


def test_processes_share_the_batches_of_one():
    texts = [(query, query // 2) for query in range(21)]
    whole = list(StepBatchSampler(texts, [6], epochs=1, seed=0))
    parts = [list(StepBatchSampler(texts, [2], epochs=1, seed=0, rank=rank, world=3)) for rank in range(3)]
    assert [first + second + third for first, second, third in zip(*parts, strict=True)] == whole


def test_batches_grow_by_their_schedule_over_equal_shares_of_the_examples():
    batches = StepBatchSampler(different(96), [4, 8, 16], epochs=3, seed=0)
    sizes = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        sizes.append([len(batch) for batch in batches])
    assert [len(part) for part in sizes] == [14] * 3
    assert [size for part in sizes for size in part] == [4] * 24 + [8] * 12 + [16] * 6


def test_a_batch_is_never_larger_than_a_pass():
    assert [sorted(batch) for batch in StepBatchSampler(different(5), [8], epochs=1, seed=0)] == [[0, 1, 2, 3, 4]]


def test_without_scores_for_all_there_is_no_teacher(tiny):
    made = [
        TrainingExample(query="a", positive_document="b", scores=[1]),
        TrainingExample(query="c", positive_document="d"),
    ]
    assert step(made, tiny).teacher is None
