"""Quality filters and the report on training data."""

from collections import Counter

import pytest

from utils.records import Chunk, TrainingExample
from utils.training_data.data_report import render_data_report
from utils.training_data.quality import Rejected, cap_per_document, filter_by_round_trip, filter_examples

LONG = "the pump lifts the water from the lower to the upper lake of the valley"


def example(query, passage="p", source="d", positive=LONG, negatives=()):
    return TrainingExample(
        query=query,
        positive_document=positive,
        negative_documents=list(negatives),
        positive_id=passage,
        source=source,
        query_type="question",
    )


def reasons(rejected):
    return [(case.reason, case.text) for case in rejected]


def test_a_query_of_many_documents_is_rejected():
    examples = [example("See also", f"p{i}", f"d{i}") for i in range(4)] + [
        example("Notes", f"p{i}", "d") for i in range(4)
    ]
    kept, rejected = filter_examples(examples)
    assert [e.query for e in kept] == ["Notes"] * 4
    assert reasons(rejected) == [("query of many documents", "See also")] * 4


def test_a_near_duplicate_query_of_the_same_passage_is_rejected():
    query = "how does the water get to the upper lake"
    kept, rejected = filter_examples(
        [example(query), example(f"{query}?"), example(query, "other"), example("what is a pump")]
    )
    assert [(e.query, e.positive_id) for e in kept] == [(query, "p"), (query, "other"), ("what is a pump", "p")]
    assert reasons(rejected) == [("repeated query", f"{query}?")]


def test_a_query_copied_from_its_passage_is_rejected():
    copy = "Is it true that the pump lifts the water, from the lower lake?"
    kept, rejected = filter_examples([example(copy), example("which pump lifts the water to the upper lake")])
    assert len(kept) == 1 and reasons(rejected) == [("copied query", copy)]
    assert rejected[0].detail == "the passage says: the pump lifts the water from the lower"


def test_a_negative_whose_text_the_positive_contains_is_dropped():
    contained = {"document": "The pump lifts the water.", "explanation": "it does not"}
    kept, rejected = filter_examples([example("what lifts water", negatives=["A crane lifts stones.", contained])])
    assert kept[0].negatives == ["A crane lifts stones."]
    assert reasons(rejected) == [("false negative", "The pump lifts the water.")]
    part_of_a_word = example("what lifts water", negatives=["the lower to the up"])  # of "upper"
    assert filter_examples([part_of_a_word]) == ([part_of_a_word], [])


def test_each_document_keeps_at_most_the_given_number_of_examples():
    examples = [example(f"query {i}", source="big" if i % 4 else "small") for i in range(40)]
    kept, rejected = cap_per_document(examples, 12, seed=1)
    assert Counter(e.source for e in kept) == {"big": 12, "small": 10}
    assert len(rejected) == 18 and kept == sorted(kept, key=examples.index)
    assert cap_per_document(examples, 12, seed=1)[0] == kept != cap_per_document(examples, 12, seed=2)[0]


def test_the_report_shows_escaped_samples_of_each_query_type_and_reason():
    examples = [
        example(f"query {i} <script>", negatives=[{"document": "no", "explanation": "why not"}]) for i in range(9)
    ]
    page = render_data_report(
        "docs", {"examples": "9"}, examples, [Rejected("repeated query", "twice & more", "of p")], seed=1
    )
    assert "question: 5 of 9" in page and "repeated query: 1 of 1" in page
    assert page.count("&lt;script&gt;") == 5 and "<script>" not in page and "twice &amp; more" in page
    assert page.count("why not") == 5 and "data:image/png;base64,iVBOR" in page


@pytest.mark.parametrize("model", ["bm25", "minilm", "splade-tiny"])
def test_a_query_has_to_retrieve_its_own_passage(model):
    texts = [
        f"The {part} of the truck is cleaned with soap and water." for part in ("mirror", "lamp", "engine", "tyre")
    ]
    passages = [Chunk(id=f"p{i}", document_id=f"d{i}", text=text) for i, text in enumerate(texts)]
    examples = [example("clean the lamp of a truck", "p1", positive=texts[1]), example("lamp", "p3", positive=texts[3])]
    kept, rejected = filter_by_round_trip(examples, passages, 1, model, "cpu")
    assert kept == examples[:1] and reasons(rejected) == [("lost in the round trip", "lamp")]
    assert "above p3" in rejected[0].detail and "p1" in rejected[0].detail
    assert filter_by_round_trip(examples, passages, 4, model, "cpu") == (examples, [])


def test_the_own_passage_does_not_count_as_ranked_above_the_positive():
    """A query cropped from a passage occurs in the passage, but not in its positive document."""
    whole = "Mirrors are glass. The lamps use 24 volts in each truck."
    passages = [Chunk(id="p0", document_id="d", text=whole), Chunk(id="p1", document_id="e", text="The sea is blue.")]
    cropped = example("The lamps use 24 volts in each truck.", "p0", positive="Mirrors are glass, lamps too.")
    assert filter_by_round_trip([cropped], passages, 1, "bm25") == ([cropped], [])
    passages.append(Chunk(id="p2", document_id="f", text="The lamps use 12 volts in each car."))
    (case,) = filter_by_round_trip([cropped], passages, 1, "bm25")[1]
    assert case.detail == "bm25 puts 1 passages or more, such as p2, above p0"  # not p0, which is the best of all
