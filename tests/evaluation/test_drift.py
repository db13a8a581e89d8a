"""The check of a model in use: what it compares, what it concludes."""

import json
import random
from dataclasses import replace

import pytest

from utils.evaluation.drift import Drift, MadeQueries, check_drift, equivalent_share, low_scores, make_pairs
from utils.evaluation.drift_texts import Units, read_units
from utils.evaluation.shift import Finding
from utils.records import Document
from utils.search.document_index import DocumentIndex
from utils.training_data.extractive import extractive_examples

TRUCKS = ["engine", "brake", "mirror", "heater", "tyre", "lamp", "wiper", "clutch", "radio", "filter", "pump", "valve"]
FOODS = [
    "soup",
    "bread",
    "cheese",
    "onion",
    "garlic",
    "butter",
    "noodle",
    "lentil",
    "carrot",
    "yogurt",
    "honey",
    "basil",
]


def write_pages(folder, things, numbers, seed):
    """Pages of three sentences on random things."""
    folder.mkdir()
    rng = random.Random(seed)
    verbs = ("Clean the {} with a soft cloth.", "Check the {} before the {} is used.", "Keep the {} near the {}.")
    for number in numbers:
        sentences = [verb.format(*rng.sample(things, 2)) for verb in rng.sample(verbs * 3, 5)]
        (folder / f"{number}.txt").write_text(" ".join(sentences))
    return folder


def verdict(p=0.003, new_p=0.003, share=0.3, detectable=0.1, kind="documents", gain_p=1.0, made=None):
    units = Units(documents=[Document(id="d", text="t")] * 40) if kind == "documents" else Units(sessions=[["q"]] * 40)
    words = Finding("words that the reference lacks", 0.02, 0.12, new_p, max(p, new_p), 0.1, 0.1)
    terms = Finding("terms (Jensen-Shannon, bits)", 0.02, 0.12, p, p, 0.1, 0.1)
    gain = Finding("nDCG@10 that tuning gains, made queries", 0.05, 0.01, gain_p, gain_p, 0.04, 0.04)
    return Drift(units, units, [words, terms, gain], share, detectable, ["rotor", "drone"], made)


def test_documents_on_another_subject_are_a_large_shift_and_more_of_the_same_none(tiny, tmp_path):
    reference = write_pages(tmp_path / "reference", TRUCKS, range(60), 0)
    same = write_pages(tmp_path / "same", TRUCKS, range(60), 1)
    other = write_pages(tmp_path / "other", FOODS, range(40), 2)
    found = check_drift(*read_units(same, reference), tiny, extractive_examples)
    assert found.verdict == "none" and found.conclusion().startswith("no shift found (p ") and not found.reasons()
    # A model beside itself: tuning has gained nothing to lose.
    found = check_drift(*read_units(other, reference), tiny, extractive_examples, tiny)
    assert found.verdict == "large" and found.share > 0.5 and found.p < 0.01
    assert set(found.words) & set(FOODS) and not set(found.words) & set(TRUCKS)
    assert found.made_queries[:4] == (40, 0.0, 0.0, 0.0)
    report = found.report()
    assert [signal["name"].split()[0] for signal in report["signals"]] == ["words", "words", "terms", "nDCG@10"]
    assert report["verdict"] == "large" and report["made_queries"]["queries"] == 40 and report["new"]["total"] == 40


def test_more_of_what_the_reference_has_some_of_is_another_mix(tiny, tmp_path):
    reference = write_pages(tmp_path / "reference", TRUCKS, range(60), 0)
    for page in write_pages(tmp_path / "foods", FOODS, range(40), 1).iterdir():
        page.rename(reference / f"food{page.name}")
    new = write_pages(tmp_path / "new", FOODS, range(40), 2)
    found = check_drift(*read_units(new, reference), tiny, extractive_examples)
    assert found.verdict == "mix" and "but one that the reference has: retraining is unlikely" in found.conclusion()
    assert len(found.reasons()) == 1


def test_too_few_documents_do_not_tell(tiny, tmp_path):
    reference = write_pages(tmp_path / "reference", TRUCKS, range(60), 0)
    few = write_pages(tmp_path / "few", TRUCKS, range(2), 1)
    found = check_drift(*read_units(few, reference), tiny, extractive_examples)
    assert found.verdict == "undecided" and found.needed > 2
    assert found.conclusion().endswith(f"with about {found.needed} new documents it would be, these are 2")


def test_short_documents_are_left_out_beside_examples_which_have_none(tiny, tmp_path):
    examples = [
        {"query": "q", "positive_document": f"Clean the {a} near the {b}."} for a in TRUCKS for b in TRUCKS if a != b
    ]
    (tmp_path / "train.json").write_text(json.dumps(examples))
    new = write_pages(tmp_path / "new", TRUCKS, range(20), 0)
    for number in range(5):
        (new / f"short{number}.txt").write_text(f"{number} words")
    units = read_units(new, tmp_path / "train.json")
    found = check_drift(*units, tiny, extractive_examples)
    assert found.new.describe() == "25 documents, 5 too short for a query left out"
    with pytest.raises(ValueError, match="1 of the new documents have enough text for a query"):
        check_drift(units[0], replace(units[1], documents=units[1].documents[-6:-4]), tiny, extractive_examples)


def test_queries_that_find_less_in_the_index_are_a_signal(tiny, tmp_path):
    with DocumentIndex(tiny) as index:
        index.add([Document(id=thing, text=f"Clean the {thing} with a soft cloth.") for thing in TRUCKS])
        signal = low_scores([[f"clean {a}", f"{b} cloth"] for a, b in zip(TRUCKS, FOODS)], tiny, index)
        assert signal.units == 12 and set(signal._values) <= {0.0, 0.5, 1.0} and 0 < signal._values.mean() < 0.3
        asked = [f"how to clean the {thing}" for thing in TRUCKS * 4]
        (tmp_path / "before.txt").write_text("\n".join(asked))
        (tmp_path / "now.txt").write_text("\n".join([*asked[:40], *(f"{food} recipe" for food in FOODS)]))
        units = read_units(tmp_path / "now.txt", tmp_path / "before.txt")
        found = check_drift(*units, tiny, extractive_examples, index=index)
        low = found.findings[-1]
        assert low.name.startswith("queries with a best score below ")
        assert low.expected == 0.0 and low.found > 0.1 and low.adjusted_p < 0.01


def test_a_query_is_made_from_as_many_documents_of_either_side(tiny, tmp_path):
    texts = [f"Clean the {thing} with a soft cloth. Then wait for an hour or two." for thing in TRUCKS]
    documents = [Document(id=str(i), text=text) for i, text in enumerate([*texts, "two words"])]
    pairs = make_pairs(documents[:6], documents[6:], extractive_examples)
    assert len(pairs) == 12 and len(set(pairs)) == 12
    earlier, new = " ".join(texts[:6]).lower(), " ".join(texts[6:]).lower()
    assert all(word in earlier for query, _ in pairs[:6] for word in query.lower().split())
    assert all(rest.lower() in new and rest.lower() not in earlier for _, rest in pairs[6:] if "the" in rest)
    assert make_pairs(documents[:6], documents[-2:], extractive_examples) == []


@pytest.mark.parametrize(
    ("settings", "expected", "said"),
    [
        ({"p": 0.02}, "none", "no shift found (p 0.020); one as large as if 10% of the new documents were"),
        ({"p": 0.02, "detectable": 0.5}, "undecided", "with about 113 new documents it would be, these are 40"),
        ({"share": 0.05}, "small", "as if 5% of the new documents were on another subject: retraining is unlikely"),
        ({"share": 0.05, "gain_p": 0.004}, "moderate", "retraining may pay"),
        ({"share": 0.15}, "moderate", "retraining may pay"),
        ({"new_p": 0.4}, "mix", "but one that the reference has: retraining is unlikely to pay"),
        ({}, "large", "large shift (p 0.003), as if 30% of the new documents were on another subject: retrain"),
        ({"kind": "queries"}, "large", "as if 30% of the new queries were on another subject: retraining may pay"),
    ],
)
def test_the_verdict_is_of_the_certainty_and_of_the_size(settings, expected, said):
    found = verdict(**settings)
    assert found.verdict == expected and said in found.conclusion()
    assert bool(found.reasons()) == (expected not in ("none", "undecided"))


def test_a_small_reference_is_not_made_up_for_by_new_documents():
    found = verdict(p=0.02, detectable=0.5)
    small = found._replace(reference=Units(documents=found.reference.documents[:5]))
    assert small.needed is None and small.conclusion().endswith("the reference is 5, the new documents 40")
    assert verdict(p=0.02, detectable=1.0).needed is None


def test_a_shift_says_what_retraining_may_bring():
    lines = verdict(share=0.5, made=MadeQueries(300, 0.05, 0.01, 0.04, 0.02, 0.06)).reasons()
    assert lines[0] == (
        "12.0% of the words of new documents are not in the reference (by chance 2.0%); more frequent now: rotor, drone"
    )
    assert "about +0.020 nDCG@10 (+0.007 to +0.030)" in lines[1]
    assert "+0.050 nDCG@10 over its untuned one" in lines[2] and "0.040 less (+0.020 to +0.060)" in lines[2]
    assert "judged queries alone show" in verdict(kind="queries").reasons()[1]


def test_an_equivalent_share_is_none_for_chance_and_all_for_strangers():
    assert [equivalent_share(excess) for excess in (-0.1, 0.0, 0.28, 0.9)] == [0.0, 0.0, 1.0, 1.0]
    assert 0.2 < equivalent_share(0.035) < 0.3
