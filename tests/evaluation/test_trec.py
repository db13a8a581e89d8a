"""TREC's files: topics in their layouts, judgments, runs."""

import pytest

from utils.evaluation.trec import read_qrels, read_run, read_topics, write_run

OLD = """
<top>
<num> Number: 301
<title> International Organized Crime

<desc> Description:
Identify organizations that participate in crime & trade.
</top>
<top>
<num> Number: 302 </num>
<title>
Poliomyelitis and
Post-Polio
</title>
</top>
"""
XML = """<?xml version="1.0"?>
<topics task="COVIDSearch">
  <topic number="1"><query>coronavirus origin</query><question>what is the origin?</question></topic>
  <topic number="2"><title>weather &amp; spread</title></topic>
</topics>"""


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("1\tred fruit\n\n2\t yellow  fruit \n", {"1": "red fruit", "2": "yellow fruit"}),
        (OLD, {"301": "International Organized Crime", "302": "Poliomyelitis and Post-Polio"}),
        (XML, {"1": "coronavirus origin", "2": "weather & spread"}),
    ],
)
def test_topics_are_read_in_trecs_layouts(text, queries, tmp_path):
    (tmp_path / "topics").write_text(text)
    assert read_topics(tmp_path / "topics") == queries


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no topics"),
        ("1 red fruit", "line 1: expected an id, a tab"),
        ("1\ta\n1\tb", "line 2: topic 1 a second time"),
        ("\tred", "line 1: a topic without an id"),
        ("<top><num> 3 </num></top>", "topic 1: a topic without a text"),
        ("<html><p>no topic</p></html>", "holds no topics"),
    ],
)
def test_broken_topics_are_named(text, message, tmp_path):
    (tmp_path / "topics").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_topics(tmp_path / "topics")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d2 2 0.5", "line 2: expected a run's"),
        ("q1 Q0 d2 2 high run", "line 2: expected a run's"),
        ("q1 Q0 d2 2 nan run", "line 2: expected a run's"),
        ("q1 Q0 d1 2 0.5 run", "line 2: document d1 a second time for query q1"),
    ],
)
def test_a_broken_line_of_a_run_is_named(line, message, tmp_path):
    (tmp_path / "run").write_text(f"q1 Q0 d1 1 1.5 run\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_run(tmp_path / "run")


def test_a_document_has_one_grade_for_a_query(tmp_path):
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq2 0 d1 2\nq1 0 d1 1\n")
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 1}, "q2": {"d1": 2}}
    (tmp_path / "qrels").write_text("q1 0 d1 1\nq1 0 d1 0\n")
    with pytest.raises(ValueError, match="line 2: document d1 has grade 0 for query q1, and 1 before; keep one"):
        read_qrels(tmp_path / "qrels")


@pytest.mark.parametrize(("read", "what"), [(read_run, "run"), (read_qrels, "judgments")])
def test_an_empty_file_is_named(read, what, tmp_path):
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ValueError, match=f"empty: holds no {what}"):
        read(tmp_path / "empty")
    (tmp_path / "empty").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        read(tmp_path / "empty")


def test_ids_with_spaces_outlive_a_run(tmp_path):
    run = {"query one": {"a document": 2.0, "b": 0.1 + 0.2}}
    write_run(tmp_path / "run", "my system, hybrid", run)
    assert read_run(tmp_path / "run") == run


@pytest.mark.parametrize("grade", ["2147483647", "-9999999", "1e300"])
def test_grades_that_trec_evals_library_cannot_count_are_refused(grade, tmp_path):
    (tmp_path / "qrels").write_text(f"q1 0 d1 1\nq1 0 d2 {grade}\n")
    with pytest.raises(ValueError, match=r"line 2: expected .* a whole number up to a million"):
        read_qrels(tmp_path / "qrels")


def test_ids_and_queries_with_odd_spaces_stay_on_their_lines(tmp_path):
    write_run(tmp_path / "run", "a", {"q\u2028one": {"d\tone": 1.0, "d\ntwo": 0.5}})
    assert read_run(tmp_path / "run") == {"q one": {"d one": 1.0, "d two": 0.5}}
    (tmp_path / "topics").write_text("1\tred\u2028fruit\x0cbowl\n")
    assert read_topics(tmp_path / "topics") == {"1": "red fruit bowl"}
