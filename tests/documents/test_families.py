"""Families of documents, and boilerplate."""

import random

import pytest

from utils.documents.families import group_documents
from utils.records import Chunk, Document

WORDS = [f"word{i}" for i in range(500)]


def text(seed, words=60):
    """Return a text of random words."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def edit(text, share, seed):
    """Return the text with a share of its words replaced at random."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())


def group(pages):
    """Group documents, each a list of passages."""
    documents = [Document(id=name, text="\n".join(passages)) for name, passages in pages.items()]
    chunks = [
        Chunk(id=f"{name}#{i}", document_id=name, text=passage)
        for name, passages in pages.items()
        for i, passage in enumerate(passages)
    ]
    return group_documents(documents, chunks)


def families(grouped):
    """Return the families of more than one document, as sorted lists of their ids."""
    members = {}
    for document, family in grouped.family_of.items():
        members.setdefault(family, []).append(document)
    return sorted(sorted(names) for names in members.values() if len(names) > 1)


@pytest.mark.parametrize("changed", [0, 0.06])  # the words of each copy of the section that differ
def test_a_section_that_most_documents_share_joins_none_of_them(changed):
    pages = {f"d{i}": [text(f"{i} a"), text(f"{i} b")] for i in range(30)}
    for i in range(27):
        pages[f"d{i}"].append(edit(text("help"), changed, i))
    grouped = group(pages)
    assert families(grouped) == []
    if not changed:  # the copies of it are no passages, the first one included
        assert grouped.boilerplate == {f"d{i}#2": 27 for i in range(27)} and not grouped.copy_of
        assert [chunk.id for chunk in grouped.passages] == [f"d{i}#{k}" for i in range(30) for k in range(2)]


@pytest.mark.parametrize(
    ("documents", "sharing", "boilerplate"), [(3, 3, 0), (9, 4, 0), (9, 5, 5), (40, 10, 0), (40, 11, 11)]
)
def test_boilerplate_is_shared_by_more_than_half_of_the_documents_or_ten(documents, sharing, boilerplate):
    pages = {f"d{i}": [text(f"{i} a"), text(f"{i} b")] for i in range(documents)}
    for i in range(sharing):
        pages[f"d{i}"].append(text("shared"))
    grouped = group(pages)
    assert len(grouped.boilerplate) == boilerplate
    assert list(map(len, families(grouped))) == ([] if boilerplate else [sharing])
    assert len(grouped.copy_of) == (0 if boilerplate else sharing - 1)


def test_editions_are_one_family_however_many_and_what_they_share_is_no_boilerplate():
    pages = {f"d{i}": [text(i), text("help")] for i in range(15)}
    for i in range(15):
        pages[f"edition {i}"] = [edit(text(f"manual {k}", 100), 0.02, i) for k in range(3)]
    grouped = group(pages)
    assert families(grouped) == [sorted(f"edition {i}" for i in range(15))]
    assert set(grouped.boilerplate) == {f"d{i}#1" for i in range(15)}
    assert {f"edition 0#{k}" for k in range(3)} <= {chunk.id for chunk in grouped.passages}


def test_documents_are_related_through_others_and_a_copy_names_the_passage_that_it_repeats():
    pages = {"a": [text(1), text(2)], "b": [text(3), text(2)], "c": [edit(text(3), 0.1, 0)], "d": [text(4)], "e": []}
    grouped = group(pages)
    assert families(grouped) == [["a", "b", "c"]] and grouped.family_of.keys() == {"a", "b", "c", "d"}
    assert grouped.copy_of == {"b#1": "a#1"} and grouped.related_to["c#0"] == {"b#0", "c#0"}
    assert [chunk.id for chunk in grouped.passages] == ["a#0", "a#1", "b#0", "c#0", "d#0"]
