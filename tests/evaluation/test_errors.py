"""Why queries are lost: the rule names the causes that were planted."""

from collections import Counter

import planted_errors as planted
import pytest
from planted_errors import Planter, collect, open_planted_encoder

from utils.evaluation.error_causes import (
    CUT,
    MISSING,
    NO_SHARED_TERM,
    NOT_EXPANDED,
    SPLIT,
    TOO_WEAK,
    UNJUDGED,
    WRONG_EXPANSION,
)
from utils.evaluation.errors import analyze_errors
from utils.evaluation.systems import evaluate_run, evaluate_search
from utils.search.document_index import DocumentIndex
from utils.search.searcher import DocumentSearch

CASES = 100  # of each kind
METRIC = "RR@100"
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


def named_causes(encoder, plant, seed, with_baseline=True, as_planted=True, metric=METRIC):
    """Return how often each cause is named for CASES planted cases; "won" for those that are not lost."""
    planter = Planter(encoder, seed)
    cases = [plant(planter, f"case{number}", as_planted) for number in range(CASES)]
    data = collect(cases, planter)
    weights = {text: given for case in cases for text, given in case.weights.items()}
    silent = [text for case in cases for text in case.weights if plant is planted.no_shared_term]
    encoder.plant(weights, silent)
    with DocumentIndex(encoder, language="en") as index:
        index.add(data.documents)
        search = DocumentSearch(index, encoder, "splade")
        found = evaluate_search("planted", search, data, [metric])
        run = {
            f"q{number}": {name: 1 / rank for rank, name in enumerate(c.baseline, 1)} for number, c in enumerate(cases)
        }
        baseline = evaluate_run("baseline", run, data, [metric]) if with_baseline else None
        analysis = analyze_errors(search, data, found, baseline, metric)
    counts = Counter(error.cause for error in analysis.errors)
    assert counts == analysis.causes
    return counts + Counter(won=CASES - len(analysis.errors))


@pytest.mark.parametrize("cause", PLANTED)
def test_the_planted_cause_is_named_in_95_of_100_cases(encoder, cause):
    metric = "nDCG@10" if cause == MISSING else METRIC
    counts = named_causes(encoder, PLANTED[cause], 1, cause != MISSING, metric=metric)
    print(cause, counts)
    assert counts[cause] >= 95, counts


@pytest.mark.parametrize("cause", PLANTED)
def test_without_what_was_planted_another_cause_is_named(encoder, cause):
    counts = named_causes(encoder, PLANTED[cause], 2, cause != MISSING, as_planted=False)
    print(cause, counts)
    assert counts[cause] <= 5 and counts["won"] <= 50, counts
