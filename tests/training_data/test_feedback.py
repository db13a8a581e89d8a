"""Training examples from user feedback on search results."""

import json

import pytest
from conftest import fails_with_one_line, run

from utils.records import Chunk, read_examples
from utils.training_data.feedback import read_feedback_examples

RECORDS = [
    {
        "query": "red fruit",
        "document": "Cherries are red.",
        "liked": True,
        "document_id": "d1",
        "time": "2026-03-01T10:00:00Z",
    },
    {"query": "red fruit", "document": "The sea is blue.", "liked": False, "model": "v1", "time": 1},
    {"query": " red  fruit ", "document": "Apples are red.", "liked": True, "document_id": "other"},
    {"query": "yellow fruit", "document": "The sea is blue.", "liked": False},
]


@pytest.fixture
def feedback(tmp_path):
    def write(*records):
        file = tmp_path / "feedback.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return file

    return write


def test_liked_documents_are_positives_and_disliked_ones_negatives(feedback):
    examples, skipped = read_feedback_examples(feedback(*RECORDS))
    assert [(e.query, e.positive_document, e.negatives) for e in examples] == [
        ("red fruit", "Cherries are red.", ["The sea is blue."]),
        ("red fruit", "Apples are red.", ["The sea is blue."]),
    ]
    assert {e.query_type for e in examples} == {"feedback"}
    assert examples[0].source == examples[0].positive_id == "d1"
    assert skipped == ["'yellow fruit' has 1 disliked results and no liked one"]


def test_the_latest_judgment_of_a_result_counts(feedback):
    def judgment(liked, time):
        return {"query": "q", "document": "A text.", "liked": liked, "time": time}

    early, late = "2026-01-01T00:00:00", "2026-01-02T00:00:00+00:00"
    assert read_feedback_examples(feedback(judgment(True, late), judgment(False, early)))[0]
    assert not read_feedback_examples(feedback(judgment(False, late), judgment(True, early)))[0]
    assert read_feedback_examples(feedback(judgment(False, None), judgment(True, None)))[0]


def test_a_document_is_linked_to_its_passage_by_id_or_text(feedback):
    passages = [
        Chunk(id="d1#0", document_id="d1", text="Cherries are red."),
        Chunk(id="d2#0", document_id="d2", text="Apples are red."),
    ]
    examples, _ = read_feedback_examples(feedback(*RECORDS), passages)
    assert [(e.positive_id, e.source) for e in examples] == [("d1#0", "d1"), ("d2#0", "d2")]


def test_all_queries_of_a_document_have_one_source_by_its_id_or_its_text(feedback):
    def liked(query, document, name=None):
        return {"query": query, "document": document, "liked": True, "document_id": name}

    examples, _ = read_feedback_examples(
        feedback(
            liked("a", "Page  one."), liked("b", "page one."), liked("c", "Page two."), liked("d", "Page one.", "p1")
        )
    )
    assert [(e.query, e.source, e.positive_id) for e in examples] == [
        ("a", "p1", "p1"), ("b", "p1", "p1"), ("c", "feedback.jsonl#2", None), ("d", "p1", "p1")
    ]  # fmt: skip
    examples, _ = read_feedback_examples(feedback(*(liked(str(i), "One page.") for i in range(20))))
    assert len(examples) == 20 and {e.source for e in examples} == {"feedback.jsonl#1"}
    # a document in another spacing is the same result, and no negative of itself
    examples, _ = read_feedback_examples(feedback(liked("a", "A page."), {**liked("a", "a  page."), "liked": False}))
    assert not examples


def test_feedback_on_a_copy_goes_with_the_passage_that_it_repeats(feedback):
    chunks = [Chunk(id=f"{name}#0", document_id=name, text="Cherries are red.") for name in ("first", "copy")]
    by_text = {"query": "q", "document": "cherries are  red.", "liked": True}
    by_id = {"query": "r", "document": "Cherries are red!", "liked": True, "document_id": "copy#0"}
    examples, _ = read_feedback_examples(feedback(by_text, by_id), chunks)
    assert [(e.positive_id, e.source) for e in examples] == [("first#0", "first"), ("copy#0", "copy")]


def test_feedback_makes_training_data_alone_and_together_with_documents(feedback, docs, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")  # feedback alone sends no request, even with a key
    out = tmp_path / "out" / "training_data.json"
    file = feedback(
        *({**record, "query": f"{record['query']} {i}", "document_id": f"d{i}"} for i in range(5) for record in RECORDS)
    )
    done = run("generate_training_data.py", "--feedback-file", file, "--output-file", out)
    assert done.returncode == 0, done.stderr
    assert "generator" not in done.stdout  # there are no documents to make queries of
    assert "examples    10: feedback 10" in done.stdout and "feedback without a liked document 5" in done.stdout
    done = run(
        "generate_training_data.py",
        "--feedback-file",
        file,
        "--input-dir",
        docs,
        "--output-file",
        out,
        "--generator",
        "extractive",
    )
    dry = ["--augment", "reformulation=0.5", "--split", "80/20", "--dry-run"]
    done_dry = run("generate_training_data.py", "--feedback-file", file, "--output-file", out, *dry)
    assert "to ask      about 0 passages, 400 tokens to read, 100 to write" in done_dry.stdout
    assert "feedback 10" in done.stdout and {"feedback", "title"} <= {e.query_type for e in read_examples(out)}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"query": "q", "document": "d"}], "line 1: field 'liked': Field required"),
        ([*RECORDS, {"query": " ", "document": "d", "liked": True}], "line 5: an empty query"),
        ([{"query": "q", "document": "d", "liked": True, "time": "yesterday"}], "line 1: field 'time"),
        ([], "holds no feedback"),
        (RECORDS[3:], "no query has a document that was liked"),
    ],
)
def test_malformed_feedback_is_a_one_line_error(feedback, tmp_path, records, message):
    out = tmp_path / "training_data.json"
    fails_with_one_line(
        run("generate_training_data.py", "--feedback-file", feedback(*records), "--output-file", out), message
    )
    assert not out.exists()
