"""Variants of training queries."""

import difflib
from collections import Counter

from conftest import run

from utils.records import TrainingExample, read_examples
from utils.search.synonyms import Synonyms
from utils.training_data.augmentation import augment_queries

TEXT = "The hydraulic pump lifts water to the upper lake whenever power is cheap at night."


def examples(count=200):
    return [
        TrainingExample(
            query=f"why does the hydraulic pump number {i} lift the water at night",
            positive_document=TEXT if i % 2 else f"the water, the {i} of the night and the why",
            source=str(i),
            query_type="question",
        )
        for i in range(count)
    ]


def test_a_share_of_the_queries_gets_a_variant_that_keeps_the_rest_of_the_example():
    before = examples()
    made = augment_queries(before, {"typo": 0.3, "keyword": 0.5}, seed=1)
    kinds = Counter(example.query_type for example in made)
    assert 40 <= kinds["question+typo"] <= 80 and 80 <= kinds["question+keyword"] <= 120
    by_source = {example.source: example for example in before}
    for example in made:
        own = by_source[example.source]
        assert example.positive_document == own.positive_document and example.query != own.query
    assert augment_queries(before, {"typo": 0.3, "keyword": 0.5}, seed=1) == made
    assert augment_queries(before, {"typo": 0.3}, seed=2) != augment_queries(before, {"typo": 0.3}, seed=1)
    assert augment_queries(before, {}, seed=1) == []


def test_a_typo_is_one_edit_of_one_word():
    made = augment_queries(examples(), {"typo": 1}, seed=1)
    assert len(made) == 200
    for variant, own in zip(made, examples()):
        edits = [op for op in difflib.SequenceMatcher(None, own.query, variant.query).get_opcodes() if op[0] != "equal"]
        assert abs(len(variant.query) - len(own.query)) <= 1 and 1 <= len(edits) <= 2
        wrong = [a != b for a, b in zip(own.query.split(), variant.query.split())]
        assert sum(wrong) == 1


def test_keywords_are_the_rarest_words_that_documents_have_in_the_querys_order():
    made = augment_queries(examples(), {"keyword": 1}, seed=1)
    assert made[1].query == "hydraulic pump lift water" or set(made[1].query.split()) <= set(
        examples()[1].query.split()
    )
    for variant in made:
        words = variant.query.split()
        assert 2 <= len(words) <= 4 and "hydraulic" in words and "does" not in words
        places = [examples()[int(variant.source)].query.split().index(word) for word in words]
        assert places == sorted(places)


def test_synonyms_come_from_the_file(tmp_path):
    file = tmp_path / "synonyms.txt"
    file.write_text("pump, impeller\nH2O => water\n")
    made = augment_queries(examples(10), {"synonym": 1}, seed=1, synonyms=Synonyms(file))
    assert [example.query_type for example in made] == ["question+synonym"] * 10
    assert all("hydraulic impeller number" in example.query for example in made)


def test_only_training_queries_are_varied(docs, tmp_path):
    out = tmp_path / "training_data.json"
    done = run(
        "generate_training_data.py",
        "--input-dir",
        docs,
        "--output-file",
        out,
        "--augment",
        "typo=1",
        "--split",
        "60/20/20",
    )
    assert done.returncode == 0, done.stderr
    assert any("+typo" in example.query_type for example in read_examples(out))
    for part in ("validation", "test"):
        assert not any("+" in e.query_type for e in read_examples(tmp_path / f"{part}_data.json"))
