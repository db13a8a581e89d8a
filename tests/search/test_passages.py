"""Passages of documents that are longer than the model's limit."""

import pytest

from utils.search.passages import split_document
from utils.splade.encoder import SpladeEncoder

LIMIT = 32  # tokens
FILLER = " ".join(f"Engine number {i} needs oil and a new filter." for i in range(40))


@pytest.fixture(scope="module")
def model():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=LIMIT, precision="float32")


def split(model, text, title=""):
    return [passage.text for passage in split_document(model, text, next(model.count_tokens([text])), title)]


def without_space(text):
    return "".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        FILLER,
        "\n\n".join(
            [FILLER[:300], "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 40, "```\n" + "x = f(y)[0]\n" * 40 + "```"]
        ),
        "モデルは文書を読みます。検索は速いです。" * 20,
        "http://example.org/" + "a1b2c3/" * 100,
        ("한국어문장" * 4 + " ") * 10,
        "😀" * 100 + " \udcff " + "é" * 100,
    ],
    ids=["prose", "table and code", "Japanese", "no spaces", "Korean", "emoji"],
)
def test_passages_fit_the_limit_and_hold_the_whole_text(model, text):
    title = "Care of engines"
    for heading in ("", title):
        passages = split(model, f"{heading}\n{text}".strip(), heading)
        assert len(passages) > 2 and max(model.count_tokens(passages)) <= LIMIT
        assert all(passage.startswith(heading) for passage in passages)
        assert "".join(without_space(passage.removeprefix(heading)) for passage in passages) == without_space(text)


def test_prose_is_cut_between_sentences(model):
    assert all(passage.endswith(".") and passage.startswith("Engine number") for passage in split(model, FILLER))


def test_a_title_that_takes_most_of_the_limit_is_text_like_any_other(model):
    title = "A very long title of a page about " + "engines and filters " * 10
    text = f"{title}\nThe end."
    passages = split(model, text, title)
    assert without_space("".join(passages)) == without_space(text) and max(model.count_tokens(passages)) <= LIMIT


@pytest.mark.parametrize("title", ["", "Oil"])
def test_white_space_is_one_passage_where_a_tokenizer_counts_it(model, title, monkeypatch):
    monkeypatch.setattr(model, "count_tokens", lambda texts: iter([len(text) + 2 for text in texts]))
    assert [passage.strip() for passage in split(model, title + " " * 100, title)] == [title]


@pytest.mark.parametrize("limit", [3, 4, 8])
def test_the_smallest_limits_end_in_passages(model, limit, monkeypatch):
    monkeypatch.setattr(model, "max_length", limit)
    passages = split(model, f"Filter\n{FILLER} 한국어", "Filter")
    assert without_space("한국어") in without_space("".join(passages).replace("Filter\n", ""))


def test_a_passage_has_the_heading_that_most_of_it_stands_under(model):
    care = "Change the filter every year, and say so."
    text = f"Intro.\n\n# Oil\n\nNo.\n\n# Filter\n\n{care}\n\n# Tyres\n\nTread?\n\n# End\n\nOf it.\n\n{care}"
    passages = split_document(model, text, next(model.count_tokens([text])))
    assert [(passage.text.split()[0], passage.heading) for passage in passages] == [("Intro.", "Filter"), ("#", "End")]
    titled = split_document(model, f"Care\n{FILLER}", next(model.count_tokens([FILLER])) + 1, "Care")
    assert {passage.heading for passage in titled} == {""}


def test_a_text_that_fits_is_one_passage_as_it_is(model):
    assert split_document(model, " a text ", 4, "a") == [(" a text ", "")]
