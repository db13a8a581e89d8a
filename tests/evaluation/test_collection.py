"""Test collections in the BEIR layout, and those that training examples make."""

import pytest

from utils.evaluation.collection import pool_examples, read_collection
from utils.records import TrainingExample


def test_a_collection_keeps_judged_queries(beir):
    collection = read_collection(beir)
    assert collection.queries == {"q1": "red fruit", "q2": "yellow fruit"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


def test_a_broken_judgment_is_named_with_its_line(beir):
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(ValueError, match=r"test\.tsv: line 2"):
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
