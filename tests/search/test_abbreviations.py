"""Abbreviations that texts define are found, counted, and written for approval."""

import json

import pytest
from conftest import fails_with_one_line, run

from utils.search.abbreviations import find_abbreviations, suggest_synonyms
from utils.search.synonyms import Synonyms

DEFINITIONS = {
    "The central processing unit (CPU) is hot.": ("CPU", "central processing unit"),
    "The CPU (central processing unit) is hot.": ("CPU", "central processing unit"),
    "A **Domain Name System** (DNS) resolver": ("DNS", "Domain Name System"),
    "many central\nprocessing units (CPUs; fast)": ("CPUs", "central\nprocessing units"),
    "Use Identity and Access Management (IAM).": ("IAM", "Identity and Access Management"),
    "We give messenger RNA (mRNA).": ("mRNA", "messenger RNA"),
    "the Bundesgerichtshof (BGH) sagt": ("BGH", "Bundesgerichtshof"),
    "a k-nearest-neighbor (k-NN) search": ("k-NN", "k-nearest-neighbor"),
}


@pytest.mark.parametrize("text", DEFINITIONS)
def test_a_definition_is_found_with_its_whole_long_form(text):
    short, long = DEFINITIONS[text]
    assert list(find_abbreviations(text)) == [(short, " ".join(long.split()))]


@pytest.mark.parametrize(
    "text",
    [
        "a similar theory (Smith) of it",
        "turn the key (see page 2)",
        "in the year (2020) it was",
        "Connect. Plug unto. (CPU)",  # of other sentences
        "the unit processes centrally (CPU)",  # of another order
        "a scheme of big units (MBU)",  # its first letter within a word
        "open vpc-1a2b (VPC)",
        "see https://example.org/web-service (WS)",
        "cars, planes, umbrellas (CPU)",  # a comma parts rules
        "()  ( ) (A) ((CPU))",
    ],
)
def test_what_defines_nothing_is_not_found(text):
    assert not list(find_abbreviations(text))


def test_suggestions_are_counted_by_document_and_used_only_once_approved(tmp_path):
    path = tmp_path / "synonyms.txt"
    texts = ["Random access memory (RAM), again Random access memory (RAM).", "The Random Access Memory (RAM)", "none",
             "a read only memory (ROM)"]  # fmt: skip
    assert suggest_synonyms(path, texts) == (2, 4)
    content = path.read_text()
    lines = [line for line in content.splitlines() if line and not line.startswith("##")]
    assert lines == ["# RAM, Random access memory", "# ROM, read only memory"]
    assert "\n## in 2 documents\n# RAM" in content and "\n## in 1 document\n# ROM" in content
    with pytest.raises(ValueError, match="holds no synonyms"):
        Synonyms(path)
    path.write_text(content.replace("# ROM", "ROM"))
    assert Synonyms(path).expand("ROM and RAM") == "ROM and RAM read only memory"


def test_the_script_suggests_from_documents_and_from_an_index_without_a_model(tmp_path):
    (tmp_path / "docs.json").write_text(
        json.dumps([f"{'word ' * 600} Air traffic control (ATC) is {'far ' * 99}", "x"])
    )
    suggest = ["--suggest-synonyms", tmp_path / "new" / "a.txt"]
    done = run("test_queries.py", "--docs-file", tmp_path / "docs.json", *suggest)
    assert done.returncode == 0 and "1 abbreviations in 2 documents" in done.stdout, done.stderr
    found = suggest[1].read_text()
    assert "# ATC, Air traffic control\n" in found
    fails_with_one_line(run("test_queries.py", "--docs-file", tmp_path / "docs.json", *suggest), "is there already")
    make = ["--model-dir", "splade-tiny", "--index-dir", tmp_path / "index", "--input-file", tmp_path / "docs.json"]
    assert run("embedder.py", *make).returncode == 0
    suggest[1].unlink()
    done = run("test_queries.py", "--index-dir", tmp_path / "index", *suggest)
    assert done.returncode == 0 and suggest[1].read_text() == found, done.stderr


def test_what_cannot_be_suggested_is_said(tmp_path):
    (tmp_path / "docs.json").write_text('["no definition"]')
    options = ["--docs-file", tmp_path / "docs.json", "--suggest-synonyms", tmp_path / "a.txt"]
    done = run("test_queries.py", *options)
    assert done.returncode == 0 and done.stdout == "no abbreviation is defined in 1 documents\n"
    fails_with_one_line(run("test_queries.py", *options, "--query", "a"), "--query has no effect with --suggest-syn")
    fails_with_one_line(run("test_queries.py", "--index-dir", tmp_path, *options[2:]), "no index in this folder")
    fails_with_one_line(run("test_queries.py", "--docs-file", tmp_path / "none", *options[2:]), "no such file")
    assert [path.name for path in tmp_path.iterdir()] == ["docs.json"]
