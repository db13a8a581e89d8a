"""The demo corpus and its questions."""

import json
from pathlib import Path

import pytest
from conftest import ROOT, fails_with_one_line, run

from utils.evaluation.reading import read_collection


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python_docs")
    assert run("examples/python_docs.py", "--output-dir", folder).returncode == 0
    return folder


def test_the_corpus_is_the_whole_library(pages):
    texts = [page.read_text() for page in pages.iterdir()]
    assert 2_400 <= len(texts) <= 3_000
    assert 1_300_000 <= sum(map(len, texts)) <= 1_900_000
    assert "Least-recently-used" in (pages / "functools.lru_cache.md").read_text()
    assert (pages / "topic.assert.md").read_text().startswith('# The "assert" statement')


def test_two_runs_write_the_same_pages(pages, tmp_path):
    run("examples/python_docs.py", "--output-dir", tmp_path)
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in (pages, tmp_path))
    assert first == second


def test_every_question_is_judged_and_every_judged_page_exists(pages):
    collection = read_collection(ROOT / "examples/python_questions", pages)
    lines = Path(ROOT / "examples/python_questions/queries.jsonl").read_text().splitlines()
    assert len(collection.queries) == len(lines) >= 320
    assert len({json.loads(line)["text"] for line in lines}) == len(lines)
    judged = {page for grades in collection.qrels.values() for page in grades}
    assert judged <= {document.id for document in collection.documents}


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    fails_with_one_line(run("examples/python_docs.py", "--output-dir", tmp_path / "file"), "cannot write")
