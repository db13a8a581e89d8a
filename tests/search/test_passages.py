"""Search of documents that are longer than the model's limit."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from utils.search.passages import DocumentIndex, split_document
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import to_csr

LIMIT = 32  # tokens
FILLER = " ".join(f"Engine number {i} needs oil and a new filter." for i in range(40))
DOCUMENTS = [
    f"{FILLER} Parrots eat sunflower seeds.",
    "",
    "Parrots are birds.",
    "Bread is baked from flour and water.",
    " ".join(f"Ship number {i} carries oil over the sea." for i in range(40)),
]


@pytest.fixture(scope="module")
def model():
    return SpladeEncoder.from_pretrained("splade-tiny", "cpu", max_length=LIMIT, precision="float32")


@pytest.fixture(scope="module")
def index(model):
    return DocumentIndex(model, DOCUMENTS)


def split(model, text, title=""):
    return split_document(model, text, next(model.count_tokens([text])), title)


def without_space(text):
    return "".join(text.split())


def test_a_long_document_is_found_by_a_sentence_at_its_end(index, model):
    best = index.search(model.encode_query("what seeds do parrots eat?"), 1)[0]
    assert best.document == 0 and "sunflower seeds" in index.passages[best.passage]
    assert not index.passages[best.passage].startswith("Engine number 0")


def test_documents_within_the_limit_are_encoded_as_they_are(index, model):
    assert index.long_documents == 2
    for text, expected in zip(DOCUMENTS[1:4], model.encode(DOCUMENTS[1:4])):
        vector = index.vectors[index.passages.index(text)]
        assert all(np.array_equal(*arrays) for arrays in zip(vector, expected))
    exactly = " ".join(["engine"] * (LIMIT - 2))
    assert DocumentIndex(model, [exactly]).passages == [exactly]
    assert len(DocumentIndex(model, [f"{exactly} engine"]).passages) == 2


def test_the_best_documents_are_found_once_each_by_their_best_passages(index, model):
    query = model.encode_query("engine oil and water")
    products = to_csr(index.vectors, model.vocabulary_size) @ to_csr([query], model.vocabulary_size).T
    scores = {}
    for document, score in zip(index.owners, products.toarray().ravel().tolist()):
        scores[document] = max(score, scores.get(document, 0))
    expected = sorted((document for document in scores if scores[document]), key=lambda document: -scores[document])
    assert expected[0] == 0 and sum(products.toarray().ravel() > scores[expected[1]]) > 4
    for top_k in (1, 2, 3, 4, 5, 10**30):
        hits = index.search(query, top_k)
        assert [hit.document for hit in hits] == expected[:top_k]
        assert [hit.score for hit in hits] == pytest.approx([scores[hit.document] for hit in hits], rel=1e-5)
        assert [index.owners[hit.passage] for hit in hits] == [hit.document for hit in hits]


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


def test_threads_find_what_one_thread_finds(index, model):
    query = model.encode_query("engine oil and water")

    def search(_):
        own = DocumentIndex(model, DOCUMENTS)
        assert own.passages == index.passages
        return own.search(query, 3), index.search(query, 3)

    with ThreadPoolExecutor(4) as pool:
        for hits in itertools.chain.from_iterable(pool.map(search, range(4))):
            assert hits == index.search(query, 3)
