"""Synonyms and abbreviations from a file."""

import pytest

from utils.search.synonyms import Synonyms


@pytest.fixture
def synonyms(tmp_path):
    file = tmp_path / "synonyms.txt"
    file.write_text(
        "# parts\nCPU, central processing unit\n\nk8s => Kubernetes, container orchestration\nA/C, air conditioning\n"
    )
    return Synonyms(file)


def test_each_phrase_is_replaced_by_each_of_its_synonyms(synonyms):
    assert list(synonyms.variants("the cpu of k8s")) == [
        "the central processing unit of k8s",
        "the cpu of Kubernetes",
        "the cpu of container orchestration",
    ]
    assert list(synonyms.variants("A central processing unit")) == ["A CPU"]
    assert list(synonyms.variants("fix the a/c!")) == ["fix the air conditioning!"]


def test_parts_of_words_and_right_sides_of_arrows_are_not_replaced(synonyms):
    assert not list(synonyms.variants("cpus and Kubernetes"))


def test_a_query_is_expanded_by_synonyms_that_it_does_not_contain(synonyms):
    assert synonyms.expand("slow CPU") == "slow CPU central processing unit"
    assert synonyms.expand("CPU (central processing unit)") == "CPU (central processing unit)"
    assert synonyms.expand("nothing known") == "nothing known"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one phrase", "line 1: expected"),
        ("a, b\n=> c", "line 2: expected"),
        ("# only\n", "holds no synonyms"),
        ("a, A", "line 1"),
    ],
)
def test_a_malformed_file_is_reported_with_its_line(tmp_path, text, message):
    file = tmp_path / "synonyms.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        Synonyms(file)
