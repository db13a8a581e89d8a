"""Query augmentation."""

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
    originals = examples()
    variants = augment_queries(originals, {"typo": 0.3, "keyword": 0.5}, seed=1)
    kinds = Counter(example.query_type for example in variants)
    assert 40 <= kinds["question+typo"] <= 80 and 80 <= kinds["question+keyword"] <= 120
    by_source = {example.source: example for example in originals}
    for example in variants:
        original = by_source[example.source]
        assert example.positive_document == original.positive_document and example.query != original.query
    assert augment_queries(originals, {"typo": 0.3, "keyword": 0.5}, seed=1) == variants
    assert augment_queries(originals, {"typo": 0.3}, seed=2) != augment_queries(originals, {"typo": 0.3}, seed=1)
    assert augment_queries(originals, {}, seed=1) == []


def test_a_typo_is_one_edit_of_one_word():
    variants = augment_queries(examples(), {"typo": 1}, seed=1)
    assert len(variants) == 200
    for variant, original in zip(variants, examples()):
        before, after = original.query, variant.query
        edits = [op for op in difflib.SequenceMatcher(None, before, after).get_opcodes() if op[0] != "equal"]
        assert abs(len(after) - len(before)) <= 1 and 1 <= len(edits) <= 2
        changed = [a != b for a, b in zip(before.split(), after.split())]
        assert sum(changed) == 1


def test_keywords_are_the_rarest_words_that_occur_in_documents_in_the_order_of_the_query():
    variants = augment_queries(examples(), {"keyword": 1}, seed=1)
    # "at", "hydraulic" and "pump" are in one document each, as is the number 98; "why" in a hundred, "water" in all.
    assert [v.query for v in variants[98:100]] == ["hydraulic pump 98 at", "why hydraulic pump at"]
    for variant in variants:
        words = variant.query.split()
        assert 2 <= len(words) <= 4 and "hydraulic" in words and "does" not in words
        positions = [examples()[int(variant.source)].query.split().index(word) for word in words]
        assert positions == sorted(positions)


def test_synonyms_come_from_the_file(tmp_path):
    file = tmp_path / "synonyms.txt"
    file.write_text("pump, impeller\nH2O => water\n")
    variants = augment_queries(examples(10), {"synonym": 1}, seed=1, synonyms=Synonyms(file))
    assert [example.query_type for example in variants] == ["question+synonym"] * 10
    assert all("hydraulic impeller number" in example.query for example in variants)


def test_only_training_queries_are_augmented(docs, tmp_path):
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
