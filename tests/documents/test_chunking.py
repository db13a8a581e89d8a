"""Passages: sizes, overlap, headings, fenced code, topic shifts."""

import itertools

import numpy as np
import pytest

from utils.documents.chunking import MIN_CHUNK_SIZE, chunk_documents, split_text
from utils.documents.segments import split_code
from utils.records import Document
from utils.search.scorers import open_text_encoder

SPICES = ("salt", "pepper", "thyme", "cumin", "paprika", "saffron", "ginger", "basil", "mint", "garlic")
AIRCRAFT = ("flaps", "gear", "nose", "speed", "left wing", "right wing", "throttle", "hook", "ladder", "slats")
LONG = " ".join(f"Sentence number {i} tells about topic {i % 7}." for i in range(300))


def test_sizes_and_overlap_stay_in_bounds():
    chunks = chunk_documents([Document(id="d", text=LONG)], size=1000, overlap=0.2)
    assert len(chunks) > 8
    assert all(500 <= len(chunk.text) <= 1000 for chunk in chunks)
    for left, right in itertools.pairwise(chunks[:-1]):  # the last chunk may overlap more, to reach the minimum size
        start = LONG.index(right.text)
        shared = LONG.index(left.text) + len(left.text) - start
        assert 50 <= shared <= 250
    assert all(chunk.text in LONG for chunk in chunks)


def test_chunks_have_the_metadata_of_their_document():
    chunks = chunk_documents([Document(id="d", text=LONG, metadata={"language": "en"}), Document(id="e", text="short")])
    assert {chunk.document_id: chunk.metadata for chunk in chunks} == {"d": {"language": "en"}, "e": {}}


def test_every_part_of_the_text_is_in_some_chunk():
    chunks = chunk_documents([Document(id="d", text=LONG)], size=700, overlap=0.1)
    assert all(any(f"number {i} tells" in chunk.text for chunk in chunks) for i in range(300))


def test_a_short_document_is_one_chunk_and_an_empty_one_none():
    chunks = chunk_documents([Document(id="a", text="short"), Document(id="b", text=" \n")])
    assert [(chunk.id, chunk.text) for chunk in chunks] == [("a#0", "short")]


def test_a_chunk_has_the_heading_above_it():
    text = f"intro\n\n## First\n\n{LONG[:1500]}\n\n```\n# no heading\n```\n\n## Second\n\n{LONG[:1500]}"
    chunks = chunk_documents([Document(id="d", title="Book", text=text)], size=1700)
    assert [chunk.heading for chunk in chunks] == ["First", "Second"]
    assert {chunk.title for chunk in chunks} == {"Book"}


def test_sections_become_chunks_with_their_path_of_headings():
    sections = [("# Engine", 600), ("## Oil", 700), ("### Filter", 800), ("## Water", 50), ("## Air", 900)]
    text = "\n\n".join(f"{heading}\n\n{LONG[:size]}" for heading, size in sections)
    chunks = chunk_documents([Document(id="d", text=text)])
    paths = [["Engine"], ["Engine", "Oil"], ["Engine", "Oil", "Filter"], ["Engine", "Air"]]
    assert [chunk.headings for chunk in chunks] == paths
    assert [chunk.text.partition("\n")[0] for chunk in chunks] == ["# Engine", "## Oil", "### Filter", "## Air"]
    assert "## Water" in chunks[2].text  # too short to stand alone


def test_a_heading_without_text_stands_with_the_section_below_it():
    text = f"{LONG[:1900]}\n\n# Tools\n\n## Hammers\n\n{LONG[:1990]}\n\n## Saws\n\n{LONG[:600]}\n\n## End"
    chunks = chunk_documents([Document(id="d", text=text)])
    assert [chunk.headings for chunk in chunks] == [[], *[["Tools", "Hammers"]] * 2, ["Tools", "Saws"]]
    assert chunks[1].text.startswith("# Tools\n\n## Hammers\n\nSent") and chunks[-1].text.endswith("## End")


@pytest.mark.parametrize(
    "lead", ["### A part", "### A part\n\n#### Of it", "Do this:", "它说:", "A part says:\n\n- so:"]
)
@pytest.mark.parametrize("overlap", [None, 0.15])
def test_no_part_ends_with_what_leads_to_the_next(lead, overlap):
    for length in range(0, 600, 25):
        text = "\n\n".join([LONG[:length], *[f"{lead}\n\n{LONG[:200]}"] * 9])
        spans = split_text(text, 600, overlap)
        parts = [text[start:end] for start, end in spans]
        assert max(map(len, parts)) <= 600 and not any(part.endswith(lead) for part in parts)
        assert "".join("".join(parts).split()) == "".join(text.split()) or overlap


def test_chinese_is_cut_between_sentences():
    text = "".join(f"第{i}句说明发动机3.5 L 的机油, 每周检查一次。" for i in range(150))
    chunks = chunk_documents([Document(id="d", text=text)], 600)
    assert len(chunks) > 6 and all(chunk.text.startswith("第") and chunk.text.endswith("。") for chunk in chunks[:-1])


def test_code_that_is_split_stays_fenced():
    code = "\n".join(f"value_{i} = compute(value_{i - 1})" for i in range(100))
    chunks = chunk_documents([Document(id="d", text=f"Some code:\n\n```\n{code}\n```\n\n# End\n\n{LONG[:600]}")], 1000)
    assert len(chunks) > 3
    for chunk in chunks[:-1]:
        assert [is_code for is_code, part in split_code(chunk.text) if "compute" in part] == [True]


@pytest.mark.parametrize(
    ("opening", "line", "closing"),
    [
        ("```", "value = 1", "```"),
        ("````python", "value = 1\n```", "````"),
        ("> ~~~", "> value = 1\n> ```", "> ~~~"),
        ("1. - ```", "     value = 1", "     ```"),
    ],
)
def test_parts_of_code_keep_to_the_size_and_to_the_kind_of_their_fence(opening, line, closing):
    text = "\n".join([LONG[:800], opening, *[line] * 80, closing, "", LONG[:800]])
    chunks = chunk_documents([Document(id="d", text=text)], 500)
    assert max(len(chunk.text) for chunk in chunks) <= 500 and sum("value" in chunk.text for chunk in chunks) > 2
    for chunk in chunks:
        for is_code, run in split_code(chunk.text):
            assert ("tells" if is_code else "value") not in run


@pytest.mark.parametrize(("size", "overlap"), [(499, 0.15), (2001, 0.15), (1000, 0.05), (1000, 0.3)])
def test_sizes_out_of_bounds_are_refused(size, overlap):
    with pytest.raises(ValueError, match="must be from"):
        chunk_documents([], size, overlap)


@pytest.mark.parametrize("model", ["minilm", "splade-tiny"])
def test_semantic_chunks_are_cut_where_the_topic_shifts(model):
    cooking = [f"Stir the soup with {spice} and let it simmer until the onions are soft." for spice in SPICES]
    flying = [f"The pilot lowers the {part} before the aircraft lands on the runway." for part in AIRCRAFT]
    text = " ".join([*cooking, *flying])
    chunks = chunk_documents([Document(id="a", text=text)], 2000, encode=open_text_encoder(model, "cpu"))
    assert " ".join(chunk.text for chunk in chunks) == text
    assert all(MIN_CHUNK_SIZE <= len(chunk.text) <= 2000 for chunk in chunks)
    assert flying[0][:20] in [chunk.text[:20] for chunk in chunks]
    assert not any("soup" in chunk.text and "pilot" in chunk.text for chunk in chunks)
    assert len(chunk_documents([Document(id="a", text=text)], 2000)) == 1  # split by size alone, it is one chunk


def test_semantic_chunks_keep_to_the_size_and_to_the_order_of_documents():
    batch_sizes = []

    def encode_as_ones(texts):
        batch_sizes.append(len(texts))
        return np.ones((len(texts), 2)) / 2**0.5

    many = [Document(id=str(i), title="T", text="A sentence of one kind. " * (5 * i)) for i in range(60)]
    many.append(Document(id="no border", text="word " * 1000))
    chunks = chunk_documents(many, 600, encode=encode_as_ones)
    assert [*dict.fromkeys(chunk.document_id for chunk in chunks)] == [d.id for d in many if d.text]
    assert max(len(chunk.text) for chunk in chunks) <= 600 and sum(batch_sizes) == sum(5 * i for i in range(60)) + 1
    assert len(batch_sizes) > 1
