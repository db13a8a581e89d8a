"""Why queries are lost: the rule names the causes that were planted, in made vectors and in a real model's."""

from collections import Counter

import numpy as np
import planted_errors as planted
import pytest
from planted_errors import Planter, collect, open_planted_encoder

from utils.evaluation.collection import Collection
from utils.evaluation.error_causes import (
    CAUSES,
    CUT,
    MISSING,
    NO_SHARED_TERM,
    NOT_EXPANDED,
    OTHER,
    SPLIT,
    TOO_WEAK,
    UNJUDGED,
    WRONG_EXPANSION,
    AskedQuery,
    SeenDocument,
    find_cause,
)
from utils.evaluation.errors import analyze_errors
from utils.evaluation.systems import evaluate_run, evaluate_search
from utils.records import Document
from utils.search.document_index import DocumentIndex
from utils.search.searcher import DocumentSearch
from utils.splade.encoder import SpladeEncoder

CASES = 100  # of each kind
PLANTED = {
    MISSING: planted.missing,
    UNJUDGED: planted.unjudged,
    CUT: planted.cut,
    SPLIT: planted.split,
    NO_SHARED_TERM: planted.no_shared_term,
    TOO_WEAK: planted.too_weak,
    NOT_EXPANDED: planted.not_expanded,
    WRONG_EXPANSION: planted.wrong_expansion,
}


@pytest.fixture(scope="module")
def encoder():
    return open_planted_encoder()


def count_causes(encoder, cause, seed, as_planted=True):
    """Return how often each cause is named for CASES planted cases; "won" for those that are not lost."""
    planter, plant = Planter(encoder, seed), PLANTED[cause]
    cases = [plant(planter, f"case{number}", as_planted) for number in range(CASES)]
    data = collect(cases, planter)
    silent = [text for case in cases for text in case.weights if cause == NO_SHARED_TERM]
    encoder.plant({text: given for case in cases for text, given in case.weights.items()}, silent)
    run = {f"q{i}": {name: 1 / rank for rank, name in enumerate(c.baseline, 1)} for i, c in enumerate(cases)}
    with DocumentIndex(encoder, language="en") as index:
        index.add(data.documents)
        search = DocumentSearch(index, encoder, "splade")
        found = evaluate_search("planted", search, data, ["nDCG@10"])
        # What is in no collection is above no baseline.
        baseline = None if cause == MISSING else evaluate_run("baseline", run, data, ["nDCG@10"])
        analysis = analyze_errors(search, data, found, baseline, "nDCG@10")
    counts = Counter(error.cause for error in analysis.errors)
    assert counts == analysis.causes and counts.keys() <= set(CAUSES)
    return counts + Counter(won=CASES - len(analysis.errors))


@pytest.mark.parametrize("cause", PLANTED)
def test_the_planted_cause_is_named_in_95_of_100_cases(encoder, cause):
    counts = count_causes(encoder, cause, seed=1)
    assert counts[cause] >= 95, counts


@pytest.mark.parametrize("cause", PLANTED)
def test_the_same_cases_without_what_is_planted_have_another_cause(encoder, cause):
    counts = count_causes(encoder, cause, seed=2, as_planted=False)
    assert counts[cause] <= 5 and counts["won"] <= 50, counts


OTHERS = ["The museum opens at nine on Sundays.", "A tailor measures the sleeve twice.", "Rain fell on the harbor."]
LONG = ", where my cousin lives with a friend who sells shoes, hats and gloves, walks to the lake each morning before "
LONG += "the shop opens, sings in a choir, paints old boats, mends clocks, and keeps bees, goats and three dogs."
VIRUS = "The periodic appearance of new influenza variants poses a worldwide pandemic threat. Since the emergence of "
VIRUS += "the new A(H7N9) virus, more than 400 human cases were reported."
REAL = {
    SPLIT: ("h7n9 cases", VIRUS, "Human cases of H7N7 were reported; cases of H2N9 too.", "'h7n9'"),
    NO_SHARED_TERM: (
        "python error handling",
        "Exceptions are raised and caught by try blocks.",
        "A python is a snake; handling it is an error.",
        "share no term",
    ),
    TOO_WEAK: ("apple", f"She ate an apple{LONG}", "apple", "'apple'"),
    NOT_EXPANDED: (
        "how to stop a car quickly",
        "Press the brake pedal of the automobile firmly.",
        "A car is a good way to stop by at your friends quickly.",
        "'stop', 'quickly' and 'car'",
    ),
    WRONG_EXPANSION: ("car", f"He bought a car{LONG}", "Automobile and vehicle, auto, truck.", "'cars'"),
    OTHER: ("red fruit", "crimson fruit that is red", "a fruit", "the model has the right passage ahead"),
}


def analyze(model, query, documents, grades, baseline=None, **options):
    """Return the analysis of one query, with a search by `options`, and what was found."""
    documents = documents | {f"other{number}": text for number, text in enumerate(OTHERS)}
    data = Collection([Document(id=name, text=text) for name, text in documents.items()], {"q": query}, {"q": grades})
    kind = options.pop("kind", "splade")
    with DocumentIndex(model, language="en") as index:
        index.add(data.documents)
        search = DocumentSearch(index, model, kind, **options)
        found = evaluate_search("system", search, data, ["RR"])
        other = evaluate_run("baseline", {"q": baseline}, data, ["RR"]) if baseline else None
        return analyze_errors(search, data, found, other, "RR"), list(found.run["q"])


@pytest.mark.parametrize("cause", REAL)
def test_a_real_model_loses_by_the_cause_that_is_named(tiny, cause):
    query, right, wrong, words = REAL[cause]
    options = {}
    if cause == OTHER:
        options["rerank"] = lambda query, texts: np.array([text == wrong for text in texts], float)
    analysis, ranking = analyze(tiny, query, {"right": right, "wrong": wrong}, {"right": 1, "wrong": 0}, **options)
    (error,) = analysis.errors
    assert error.cause == cause and words in error.explanation, error.explanation
    assert (error.value, error.baseline_value) == (1 / error.right.rank if error.right.rank else 0, 1)
    assert error.wrong.id == "wrong" and error.wrong.rank == 1 and wrong.startswith(error.wrong.snippet[:20])
    assert error.right.rank == (ranking.index("right") + 1 if "right" in ranking else None)
    if cause != OTHER:
        assert sum(cost for _, cost in analysis.words) == pytest.approx(error.wrong.score - error.right.score, rel=1e-3)
        assert error.lead == analysis.words[: len(error.lead)] and error.wrong.terms


def test_a_copy_that_nobody_judged_is_said_to_be_likely_relevant(tiny):
    text = "The heater of the cabin needs two minutes before it blows warm air into the room below the stairs"
    texts = {"a": f"{text}.", "b": f"{text} again."}
    _, (first, second, *_) = analyze(tiny, "how long until the heater blows warm air?", texts, {"a": 1})
    analysis, _ = analyze(tiny, "how long until the heater blows warm air?", texts, {second: 1})
    assert analysis.errors[0].cause == UNJUDGED and analysis.errors[0].wrong.id == first
    analysis, _ = analyze(tiny, "how long until the heater blows warm air?", texts, {second: 1, first: 0})
    assert analysis.errors[0].cause != UNJUDGED


def test_what_both_systems_have_at_the_top_is_likely_relevant_where_the_right_one_is_next_to_it(tiny):
    texts = {"right": "crimson berries", "wrong": "red fruit"}
    baseline = {"right": 3.0, "wrong": 2.0}
    (error,) = analyze(tiny, "red fruit", texts, {"right": 1}, baseline)[0].errors
    assert error.cause == UNJUDGED and "both systems rank it high, and it has 'fruit' and 'red'" in error.explanation
    (error,) = analyze(tiny, "red fruit", texts, {"right": 1, "wrong": 0}, baseline)[0].errors
    assert error.cause == NOT_EXPANDED
    (error,) = analyze(tiny, "red fruit", texts, {"right": 1}, {"right": 3.0})[0].errors
    assert error.cause == NOT_EXPANDED
    more = {f"more{number}": f"red fruit {'bowl ' * number}" for number in range(1, 4)}  # which push the right one down
    (error,) = analyze(tiny, "red fruit", texts | more, {"right": 1}, baseline)[0].errors
    assert error.right.rank > 3 and error.cause == NOT_EXPANDED


def test_what_the_limit_cuts_off_is_said(short_model):
    model = SpladeEncoder.from_pretrained(short_model, "cpu", precision="float32")
    texts = {"right": "banana plants", "wrong": "tell the story of the sea"}
    analysis, _ = analyze(model, "tell me about the red banana", texts, {"right": 1})
    (error,) = analysis.errors
    assert error.cause == CUT and "'banana'" in error.explanation
    long = "The harbor is old. " + "A tailor sews gloves for the mayor. " * 2 + "Boats carry salt and pepper."
    texts = {"right": long, "wrong": "The salt of tears, and a safe harbor"}
    (error,) = analyze(model, "harbor salt", texts, {"right": 1})[0].errors
    assert error.cause == CUT and "was cut into passages" in error.explanation


def test_a_judged_document_that_is_not_there_is_said(tiny):
    (error,) = analyze(tiny, "red fruit", {"a": "apples are red fruit"}, {"gone": 1, "also gone": 2})[0].errors
    assert error.cause == MISSING and "2 relevant documents 2 are not in the collection" in error.explanation
    assert error.right is error.wrong is None and error.lead == [] and error.value == 0


def test_the_wrong_document_is_the_highest_that_the_baseline_has_below_the_right_one(tiny):
    texts = {"right": "crimson berries", "both": "red fruit, red fruit", "wrong": "a red fruit bowl"}
    _, ranking = analyze(tiny, "red fruit", texts, {"right": 1})
    assert set(ranking[:2]) == {"both", "wrong"}
    high, low = ranking[:2]
    baseline = {high: 3.0, "right": 2.0, low: 1.0}
    (error,) = analyze(tiny, "red fruit", texts, {"right": 1}, baseline)[0].errors
    assert error.wrong.id == low and error.baseline_value == 0.5
    (error,) = analyze(tiny, "red fruit", texts, {"right": 1})[0].errors
    assert error.wrong.id == high and error.baseline_value == 1


def test_what_is_not_below_the_baseline_is_no_error(tiny):
    texts = {"right": "crimson berries", "wrong": "red fruit"}
    assert analyze(tiny, "red fruit", texts, {"right": 1}, {"other0": 2.0, "wrong": 1.5, "right": 1.0})[0].errors == []
    analysis, _ = analyze(tiny, "red fruit", {"right": "red fruit"}, {"right": 1})
    assert analysis == ([], {}, [])


def test_a_search_without_the_model_cannot_be_explained(tiny):
    with pytest.raises(ValueError, match="this search is by bm25"):
        analyze(tiny, "red fruit", {"right": "crimson berries", "wrong": "red fruit"}, {"right": 1}, kind="bm25")


def test_a_word_that_the_right_text_has_in_another_form_is_not_named_as_missing():
    both = np.array([True, True])
    query = AskedQuery(
        terms=["def", "shell"],
        weights=np.ones(2),
        has=both,
        words={"deflection": 2.0, "shell": 1.0},
        cut=[],
        split=[],
        tokens={"deflection": np.array([True, False]), "shell": np.array([False, True])},
    )
    seen = {"has": ~both, "heaviest": 1.0, "words": ["deflection"], "all_words": ["deflection"]}
    right = SeenDocument("deflections", np.array([0.0, 0.2]), highest_weights=np.array([0.0, 0.2]), **seen)
    seen = {"has": both, "heaviest": 1.0, "words": ["deflection", "shell"], "all_words": ["deflection", "shell"]}
    wrong = SeenDocument("shell deflection", np.ones(2), highest_weights=np.ones(2), **seen)
    assert find_cause(query, right, wrong) == (
        "expansion missing",
        "the wrong passage has 'shell' of the query, which the right one's text has not",
    )
