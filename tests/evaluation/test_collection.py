"""Test collections in the BEIR layout, and those that training examples make."""

import pytest

from utils.evaluation.collection import keep_nearest, pool_examples
from utils.evaluation.reading import read_collection
from utils.records import Passage, TrainingExample


def test_a_collection_keeps_judged_queries(beir):
    collection = read_collection(beir)
    assert collection.queries == {"q1": "red fruit", "q2": "yellow fruit"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    "lines",
    [
        "q1\td1\t1.0\nq1\td3\t-1\nq2\td2\t0\n",
        "q1 0 d1 1\n\nq1 0 d3 -1\n",
        "query-id\titeration\tcorpus-id\tRel\nq1\tQ0\td1\t1\nq1\tQ0\td3\t-1",
    ],
)
def test_judgments_of_a_split_may_have_trecs_columns_and_grades_of_all_signs(lines, beir):
    (beir / "qrels" / "dev.tsv").write_text(lines, encoding="utf-8-sig")
    collection = read_collection(beir, split="dev")
    assert collection.queries == {"q1": "red fruit"}
    assert collection.qrels == {"q1": {"d1": 1, "d3": -1}}


@pytest.mark.parametrize("line", ["q1 d1", "q1\td1\thigh", "q1 d1 0.5", "q1 0 d1 1 run", "q1\td1\tnan"])
def test_a_broken_judgment_is_named_with_its_line(line, beir):
    (beir / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{line}\n")
    with pytest.raises(ValueError, match=r"test\.tsv: line 2.*whole number"):
        read_collection(beir)


def test_judgments_that_cannot_be_read_are_named(beir):
    with pytest.raises(FileNotFoundError, match=r"dev\.tsv: no such file; the folder has the splits test"):
        read_collection(beir, split="dev")
    (beir / "qrels" / "test.tsv").write_bytes(b"q1\td1\t1\xff")
    with pytest.raises(ValueError, match=r"test\.tsv: not UTF-8"):
        read_collection(beir)


def test_pooled_examples_judge_all_that_was_made_from_a_passage():
    rows = [
        ("title", "the body", "p1", []),
        ("a sentence", "the rest of the body", "p1", ["a stranger"]),
        ("another", "elsewhere", None, ["the body"]),
        ("title", "a second answer", "p2", []),
        ("", "asked by nobody", "p3", []),
    ]
    pooled = pool_examples(
        TrainingExample(query=query, positive_document=text, positive_id=name, negative_documents=negatives)
        for query, text, name, negatives in rows
    )
    texts = {document.id: document.text for document in pooled.documents}
    judged = {pooled.queries[query]: {texts[d] for d in grades} for query, grades in pooled.qrels.items()}
    passage = {"the body", "the rest of the body"}
    assert judged == {"title": passage | {"a second answer"}, "a sentence": passage, "another": {"elsewhere"}}
    assert set(texts.values()) == passage | {"a stranger", "elsewhere", "a second answer", "asked by nobody"}


def test_the_collection_of_examples_is_their_passages_and_further_documents_each_once():
    passages = [Passage(passage_id=name, passage=text) for name, text in (("p1", "one"), ("p2", "two"), ("p3", "two"))]
    rows = [TrainingExample(query="first", positive_document="one", positive_id="p1", negative_documents=["two", "no"])]
    pooled = pool_examples(rows, passages)
    assert [document.text for document in pooled.documents] == ["one", "two", "no"]
    assert pooled.qrels == {"q0": {"d0": 1}}


def test_the_nearest_documents_are_the_judged_ones_and_the_first_ranks_of_all_queries():
    words = ("engine", "brake")
    texts = [f"{word} " * (9 - i) + f"w{i} " * 3 * i for i in range(9) for word in words] + ["neither of them"] * 4
    passages = [Passage(passage_id=None, passage=f"{text} n{i}") for i, text in enumerate(texts)]
    answers = [passages[-1].passage, passages[-2].passage]
    rows = [TrainingExample(query=word, positive_document=text) for word, text in zip(words, answers)]
    data = pool_examples(rows, passages)
    nearest = [document.text for document in keep_nearest(data, 7).documents]
    assert nearest == [passage.passage for passage in passages[:5]] + [passages[-2].passage, passages[-1].passage]
    assert keep_nearest(data, 22) == data and len(keep_nearest(data, 21).documents) == 20
    assert [document.text for document in keep_nearest(data, 1).documents] == answers[::-1]
