"""What is compared: documents, and queries in sessions, of files of all kinds."""

import json

import pytest

from utils.evaluation import drift_texts
from utils.evaluation.drift_texts import read_units


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("reset the  device\n\nreset the device\nlow pressure\nreset the device\n")
    return path


def test_a_text_file_has_a_query_a_line_and_one_that_is_repeated_at_once_counts_once(queries):
    before, after = read_units(queries, queries)
    assert before == after and after.kind == "queries" and after.describe() == "3 queries"
    assert after.texts == ["reset the device", "low pressure", "reset the device"]


def test_queries_of_one_session_or_of_one_document_are_a_unit(tmp_path, queries):
    feedback = [{"query": query, "document": "d", "liked": True} for query in ("a", "a", "b", "c", "d")]
    for number in (0, 1, 3):
        feedback[number]["session"] = "s1"
    examples = [{"query": f"q{i}", "positive_document": "p", "source": "x" if i < 2 else "y"} for i in range(3)]
    log, train = write_lines(tmp_path / "log.jsonl", *feedback), write_lines(tmp_path / "train.jsonl", *examples)
    before, after = read_units(log, train)
    assert after.sessions == [["b"], ["d"], ["a", "c"]] and after.describe() == "3 sessions"
    assert before.sessions == [["q0", "q1"], ["q2"]] and before.texts == ["q0\nq1", "q2"]


def test_documents_that_the_reference_has_are_left_out_and_copies_count_once(tmp_path, pages):
    (pages / "lamp2.txt").write_text((pages / "lamp.txt").read_text())
    texts = [(pages / "lamp.txt").read_text().upper(), "New words here", "new  words here", "Other words", ""]
    new = write_lines(tmp_path / "new.jsonl", *({"text": text} for text in texts))
    before, after = read_units(new, pages)
    assert (len(before), before.total) == (12, 12)
    assert (after.texts, after.known) == (["New words here", "Other words"], 1)
    assert after.describe() == "2 documents, without 1 that the reference has"


def test_training_examples_are_documents_by_the_longest_text_of_each_passage(tmp_path, pages):
    rows = [("d1#0", "d1", "short"), ("d1#0", "d1", "a longer text"), ("d1#1", "d1", "second"), (None, None, "alone")]
    examples = [{"query": "q", "positive_id": p, "source": s, "positive_document": text} for p, s, text in rows]
    before, after = read_units(pages, write_lines(tmp_path / "train.jsonl", *examples))
    assert before.texts == ["a longer text\n\nsecond", "alone"] and before.from_examples
    assert after.kind == "documents" and len(after) == 12


def test_of_more_units_a_sample_is_drawn_evenly_and_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(drift_texts, "MAX_UNITS", 20)
    path = tmp_path / "queries.txt"
    path.write_text("".join(f"query {i}\n" for i in range(200)))
    drawn = [[int(text.split()[1]) for text in read_units(path, path, seed)[1].texts] for seed in range(100)]
    assert read_units(path, path)[1].describe() == "200 queries, 20 of them sampled"
    assert all(len(set(one)) == 20 for one in drawn) and 95 < sum(map(sum, drawn)) / 2000 < 104
    assert [int(text.split()[1]) for text in read_units(path, path, 0)[1].texts] == drawn[0]


@pytest.mark.parametrize(
    ("new", "reference", "message"),
    [
        ("queries.txt", "pages", "pages: holds no queries; name a .txt file"),
        ("pages", "feedback.jsonl", "feedback.jsonl: line 1: no training example, and no document"),
        ("one.txt", "queries.txt", "one.txt: 1 queries; a comparison takes two at least"),
        ("broken.jsonl", "queries.txt", "broken.jsonl: line 2: has no field 'query'"),
        ("pages", "pages", "pages: 0 documents, and 12 that the reference has; a comparison takes two"),
        ("missing", "pages", "no such file or folder"),
    ],
)
def test_what_cannot_be_compared_is_named(new, reference, message, tmp_path, pages, queries):
    (tmp_path / "one.txt").write_text("one\n")
    write_lines(tmp_path / "broken.jsonl", {"query": "a"}, {"question": "b"})
    write_lines(tmp_path / "feedback.jsonl", {"query": "a", "document": "b", "liked": True})
    with pytest.raises((ValueError, OSError), match=message):
        read_units(tmp_path / new, tmp_path / reference)
