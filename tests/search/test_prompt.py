"""The prompt: its commands on hits, and its lines in a terminal."""

import contextlib
import json
import os
import pty
import stat
import subprocess
import sys

import pytest
from conftest import ROOT, fails_with_one_line, run

from utils.training_data.feedback import read_feedback_examples

DOCUMENTS = [
    {
        "id": "adjust",
        "text": "# Mirrors\nAdjust the mirrors before driving.",
        "metadata": {"truck": "T 7", "year": 2020},
    },
    {"id": "oil", "text": "Change the oil of the truck.", "metadata": {"year": 2021}},
    {"id": "rear", "title": "Reverse", "text": "Look into the rear mirror."},
]


@pytest.fixture
def ask(tmp_path):
    """Return what the script prints after each line that is typed."""

    def asked(*lines, options=(), documents=DOCUMENTS):
        (tmp_path / "docs.json").write_text(json.dumps(documents))
        files = ["--docs-file", tmp_path / "docs.json", "--feedback-file", tmp_path / "feedback.jsonl"]
        done = run("test_queries.py", "--model-dir", "splade-tiny", *files, *options, stdin="\n".join([*lines, ""]))
        assert done.returncode == 0, done.stderr
        return done.stdout.split("query> ")[1:]

    return asked


def test_a_hit_is_explained_by_the_weights_of_both_sides(ask, tiny):
    _, explained, _ = ask("mirror", ":explain 1", options=["--precision", "float32", "--filter", "id=adjust"])
    head, *lines, words = explained.strip().splitlines()
    assert head.split() == ["term", "in", "query", "in", "passage", "share", "expansion", "of"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["mirror"][3:] == ["passage"] and rows["mirrors"][3:] == ["query"]
    assert rows["lights"][3:] == ["query", "and", "passage"]
    weights = dict(zip(tiny.decode_terms(tiny.encode_query("mirror").indices), tiny.encode_query("mirror").values))
    assert float(rows["mirror"][0]) == pytest.approx(weights["mirror"], abs=0.06)
    assert sum(float(row[2]) for row in rows.values()) == pytest.approx(1, abs=0.01)
    assert words == "words of both, by BM25: mirror"


def test_a_hit_is_shown_below_its_title_and_heading_by_the_sentence_that_matched(ask):
    text = f"## Care\n\nAll trucks are red. Each has wheels. Change the filters often! {'word ' * 600}"
    filters, red, _ = ask("filters", "red", documents=[{"id": "a", "title": "Trucks", "text": text}])
    assert filters.splitlines()[1] == red.splitlines()[1] == "  Trucks > Care:"
    assert filters.splitlines()[2].startswith("  Change the filters often!")
    assert red.splitlines()[2].startswith("  All trucks are red. Each has wheels.")


def test_filters_and_the_kind_of_search_hold_until_they_are_changed(ask):
    answers = ask(
        "mirrors", ":filter 'truck=T 7' year>2000", "mirrors", ":search bm25", "oil", ":filter", "oil", "mirrors"
    )
    assert "adjust" in answers[0] and "rear" in answers[0]
    assert answers[1] == "searching documents with truck=T 7 year>2000\n"
    assert "Rank 1 (Score: 2.0000) adjust" in answers[2] and "Rank 2" not in answers[2]
    assert answers[4].startswith("No document that the filter lets through shares a term")
    assert "words: mirrors" in answers[2] and "matched: " in answers[2]
    assert "Rank 1" in answers[6] and "words: oil" in answers[6] and "matched: " not in answers[6]
    assert "Rank 2" in answers[7]


def test_a_refused_filter_says_which_one_still_holds(ask):
    refused, *_ = ask(":filter year")
    assert refused.endswith("; still searching all documents\n")
    lines = ":filter color=red", ":filter year=2021", ":filter 'a", "mirrors"
    refused, _, again, answer = ask(*lines, options=["--filter", "year=2020"])[:4]
    assert refused.endswith("they have id, truck, year; still searching documents with year=2020\n")
    assert again.endswith("No closing quotation; still searching documents with year=2021\n")
    assert "that the filter lets through" in answer or "oil" in answer


@pytest.mark.parametrize(("kind", "table", "words"), [("bm25", False, True), ("splade", True, False)])
def test_what_did_not_count_explains_nothing(ask, kind, table, words):
    _, _, explained, _, later, _ = ask(f":search {kind}", "mirror", ":explain 1", ":search hybrid", ":explain 1")
    for answer in (explained, later):  # the query was searched before
        assert ("in passage" in answer) == table and ("words of both" in answer) == words


def test_judgments_are_feedback_that_becomes_training_data(ask, tmp_path):
    answers = ask("mirrors in the rear", ":like 1", ":dislike 2", "oil", ":like 1", options=["--top-k", 2])
    assert answers[1].startswith("liked ") and answers[2].startswith("disliked ")
    lines = [json.loads(line) for line in (tmp_path / "feedback.jsonl").read_text().splitlines()]
    assert [line["liked"] for line in lines] == [True, False, True] and lines[2]["document_id"] == "oil"
    examples, skipped = read_feedback_examples(tmp_path / "feedback.jsonl")
    assert not skipped and [example.query for example in examples] == ["mirrors in the rear", "oil"]
    assert examples[0].negative_documents == [lines[1]["document"]] and examples[1].source == "oil"
    ask("oil", ":dislike 1")
    assert len((tmp_path / "feedback.jsonl").read_text().splitlines()) == 4


def test_a_passage_is_shown_whole(ask):
    text = " ".join(f"Sentence number {i} is about the brakes." for i in range(120))
    _, shown, _ = ask("what do parrots eat?", ":more 1", documents=[*DOCUMENTS, f"{text} Parrots eat seeds."])
    first, passage = shown.strip().split("\n")
    assert first == "docs.json#4, passage 3 of 3" and passage.endswith("Parrots eat seeds.") and len(passage) > 400


def test_judgments_are_not_added_to_what_is_no_feedback(tmp_path):
    documents = tmp_path / "docs.jsonl"
    documents.write_text(json.dumps({"text": "The mirror."}) + "\n")
    search = ["--model-dir", "splade-tiny", "--docs-file", documents, "--feedback-file"]
    done = run("test_queries.py", *search, documents)
    fails_with_one_line(done, f"{documents}: holds no feedback", "name another --feedback-file")
    same = tmp_path / "a.json"
    fails_with_one_line(run("test_queries.py", *search, same, "--output-file", same), "name another output file")
    assert run("test_queries.py", *search, tmp_path / "new.jsonl").returncode == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":explain 1", "there is no hit yet: type a query"),
        (":foo 1", ":foo: no such command; :help lists them"),
        (":search all", "search by 'all': use hybrid, splade, bm25, dense"),
        (":filter year", "filter 'year': expected a field"),
        (":filter color=red", "filter on 'color': no document has this field; they have id, truck, year"),
        (":filter 'a", ":filter 'a: No closing quotation"),
    ],
)
def test_a_command_that_cannot_be_done_is_named_and_the_prompt_goes_on(ask, line, message):
    refused, answer, *_ = ask(line, "mirrors")
    assert refused.startswith(message) and len(refused.splitlines()) == 1 and "Rank 2" in answer


@pytest.mark.parametrize("given", ["0", "4", "x", "", "1 2", "²"])
def test_only_hits_that_there_are_can_be_named(ask, given):
    _, refused, _ = ask("mirrors", f":more {given}")
    assert refused == f"'{given}' is none of the hits, 1 to 2\n"


def in_a_terminal(folder, *lines):
    """Type lines into the script, each at a prompt; return the screen."""
    (folder / "docs.json").write_text(json.dumps(DOCUMENTS))
    command = [
        sys.executable,
        ROOT / "test_queries.py",
        "--model-dir",
        "splade-tiny",
        "--docs-file",
        folder / "docs.json",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "TERM": "dumb"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    screen = b""
    with contextlib.suppress(OSError):  # the terminal is gone when the script has ended
        for line in lines:
            while not screen.endswith(b"query> "):
                screen += os.read(ours, 4096)
            os.write(ours, line.encode())
            screen += os.read(ours, 4096)
        while True:
            screen += os.read(ours, 4096)
    os.close(ours)
    assert process.wait() == 0, screen
    return screen.decode()


def test_earlier_lines_are_found_again_in_a_terminal(tmp_path):
    history = tmp_path / "splade-toolkit" / "queries"
    history.parent.mkdir(mode=0o700)
    history.write_text("oil\n")
    history.chmod(0o600)
    up = "\x1b[A"
    screen = in_a_terminal(tmp_path, f"{up}\r", "mirrors\r", f"{up}{up}\r", ":explain 1\r", "quit\r")
    assert "words of both, by BM25: oil" in screen
    assert history.read_text().splitlines() == ["oil", "mirrors", "oil", ":explain 1", "quit"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_another_model_is_shown_beside_until_it_is_taken_away(ask, short_model):
    long = "Sentence about brakes. " * 6 + "Parrots eat seeds."  # of several passages for the other model
    documents = [*DOCUMENTS, {"id": "long", "title": "Birds", "text": long, "metadata": {"year": 1999}}]
    lines = (
        "parrots",
        f":compare {short_model}",
        ":filter year<2000",
        "birds",
        ":compare ./none-such",
        ":compare",
        "oil",
    )
    first, compared, _, filtered, refused, alone, last, _ = ask(*lines, documents=documents)
    head, columns, *_ = compared.strip().splitlines()
    assert head.startswith(f"4 documents encoded by {short_model} in ") and head.endswith(" s")
    assert columns.split(" | ")[0].strip() == "splade-tiny" and "Rank 1" in first
    assert compared.count("1. long (") == 2 and compared.count("there 1)") == 2
    assert filtered.count("1. long (") == 2 and "2. " not in filtered
    assert "none-such" in refused and len(refused.splitlines()) == 1
    assert alone == "searching by splade-tiny alone\n" and last.startswith("Rank 1 (")


def test_a_model_is_shown_beside_another_of_its_name(ask):
    compared = ask("oil", ":compare splade-tiny", "oil")[1]
    assert [name.strip() for name in compared.strip().splitlines()[1].split(" | ")] == ["splade-tiny"] * 2
