"""Passages: sizes, overlap, headings."""

import itertools

import pytest

from utils.chunking import chunk_documents
from utils.records import Document

LONG = " ".join(f"Sentence number {i} tells about topic {i % 7}." for i in range(300))


def test_sizes_and_overlap_stay_in_bounds():
    chunks = chunk_documents([Document(id="d", text=LONG)], size=1000, overlap=0.2)
    assert len(chunks) > 8
    assert all(500 <= len(chunk.text) <= 1000 for chunk in chunks)
    for left, right in itertools.pairwise(chunks[:-1]):  # a short last one is widened further
        start = LONG.index(right.text)
        shared = LONG.index(left.text) + len(left.text) - start
        assert 50 <= shared <= 250
    assert all(chunk.text in LONG for chunk in chunks)


def test_every_part_of_the_text_is_in_some_chunk():
    chunks = chunk_documents([Document(id="d", text=LONG)], size=700, overlap=0.1)
    assert all(any(f"number {i} tells" in chunk.text for chunk in chunks) for i in range(300))


def test_a_short_document_is_one_chunk_and_an_empty_one_none():
    chunks = chunk_documents([Document(id="a", text="short"), Document(id="b", text=" \n")])
    assert [(chunk.id, chunk.text) for chunk in chunks] == [("a#0", "short")]


def test_a_chunk_knows_the_heading_above_it():
    text = f"intro\n\n## First\n\n{LONG[:1500]}\n\n```\n# no heading\n```\n\n## Second\n\n{LONG[:1500]}"
    chunks = chunk_documents([Document(id="d", title="Book", text=text)], size=1700)
    assert [chunks[0].heading, chunks[1].heading, chunks[-1].heading] == ["", "First", "Second"]
    assert {chunk.title for chunk in chunks} == {"Book"}


@pytest.mark.parametrize(("size", "overlap"), [(499, 0.15), (2001, 0.15), (1000, 0.05), (1000, 0.3)])
def test_sizes_out_of_bounds_are_refused(size, overlap):
    with pytest.raises(ValueError, match="must be from"):
        chunk_documents([], size, overlap)
