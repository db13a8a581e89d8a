"""Reading documents of all formats, and judged collections."""

import json

import pytest

from utils.documents import pool_examples, read_collection, read_documents
from utils.records import TrainingExample


def by_id(folder):
    return {document.id: document for document in read_documents(folder).documents}


def test_a_folder_of_all_formats(docs):
    found = by_id(docs)
    assert list(found) == [
        "brakes.txt", "engine.md", "lights.html", "more.json#1", "more.json#2", "mirror-1", "tyres.rst",
    ]  # fmt: skip
    assert found["engine.md"].title == "Engine manual" and "## Starting" in found["engine.md"].text
    assert found["tyres.rst"].title == "Tyres" and "====" not in found["tyres.rst"].text
    assert found["lights.html"].title == "Lights"
    assert "24 volts" in found["lights.html"].text
    assert "alert" not in found["lights.html"].text and "color" not in found["lights.html"].text
    assert found["mirror-1"].full_text.startswith("Mirrors\nAdjust both mirrors")
    assert found["brakes.txt"].title == ""


def test_an_unreadable_file_is_reported_and_skipped(docs):
    (docs / "broken.json").write_text('["a",\n "b" "c"]')
    (docs / "latin.txt").write_bytes(b"caf\xe9")
    (docs / "binary.md").write_bytes(b"\0\1\2")
    documents, skipped = read_documents(docs)
    assert len(documents) == 7 and len(skipped) == 3
    assert any("broken.json: line 2" in reason for reason in skipped)


def test_a_broken_file_given_by_name_raises(docs):
    (docs / "broken.jsonl").write_text('{"text": "a"}\n{"title": "no text"}\n')
    with pytest.raises(ValueError, match="line 2: a document needs a field"):
        read_documents(docs / "broken.jsonl")


def test_hidden_and_foreign_files_are_left_out(docs):
    (docs / ".git").mkdir()
    (docs / ".git" / "x.md").write_text("hidden")
    (docs / "photo.png").write_bytes(b"png")
    assert len(read_documents(docs).documents) == 7


def test_a_beir_folder_gives_its_corpus_alone(beir):
    assert [document.id for document in read_documents(beir).documents] == ["d1", "d2", "d3"]


def test_a_collection_keeps_judged_queries(beir):
    collection = read_collection(beir)
    assert collection.queries == {"q1": "red fruit", "q2": "yellow fruit"}
    assert collection.qrels == {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}


def test_a_broken_judgment_is_named_with_its_line(beir):
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(ValueError, match=r"test\.tsv: line 2"):
        read_collection(beir)


def test_the_same_id_twice_stays_two_documents(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"id": "x", "text": "one"}, {"id": "x", "text": "two"}]))
    assert [document.id for document in read_documents(tmp_path).documents] == ["x", "x~2"]


@pytest.mark.parametrize("path", ["none", "empty"])
def test_missing_and_empty_folders_say_so(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError), match=r"no such file|no documents"):
        read_documents(tmp_path / path)


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
