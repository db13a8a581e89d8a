"""What a training has nothing to learn from."""

import pytest

from utils.records import TrainingExample
from utils.training.guards import TrainingGuard, find_uncompared


def pairs(texts, negatives=()):
    """Examples of (query, positive document); those at the positions `negatives` have a negative."""
    made = [TrainingExample(query=query, positive_document=document) for query, document in texts]
    for position in negatives:
        made[position].negative_documents = [" ", "something else"]
    return made


DIFFERENT, ONE_PAGE, ONE_QUERY = [("a", "p"), ("b", "q")], [("a", "p"), ("b", " P")], [("a", "p"), ("A ", "q")]
CASES = [
    (pairs(DIFFERENT), ["contrastive"], 2, 0, "", False),
    (pairs(DIFFERENT), ["contrastive"], 1, 2, "raise `batch_size`", True),
    (pairs(DIFFERENT, [1]), ["margin"], 1, 1, "raise `batch_size`", True),
    (pairs(DIFFERENT, [0, 1]), ["contrastive"], 1, 0, "", True),
    (pairs(DIFFERENT[:1]), ["contrastive"], 32, 1, "add others", False),
    (pairs(ONE_PAGE), ["kl-batch"], 2, 2, "one positive document", False),
    (pairs(ONE_QUERY, [0]), ["contrastive"], 2, 1, "one query", False),
    (pairs(DIFFERENT, [0]), ["kl", "margin-mse"], 2, 1, "own documents", True),
    (pairs(DIFFERENT, [0]), ["kl", "contrastive"], 2, 0, "", False),
]


@pytest.mark.parametrize(("examples", "losses", "step", "count", "reason", "by_setting"), CASES)
def test_examples_that_are_compared_with_nothing_are_found(examples, losses, step, count, reason, by_setting):
    found = find_uncompared(examples, losses, step)
    assert (found.count, found.by_setting) == (count, by_setting) and reason in found.reason


@pytest.mark.parametrize(
    ("possible", "sparse", "full"),
    [(None, 500, 501), (400, 200, 201), (40, 100, 101)],  # of 1,000 terms: all, some, those of a handful of texts
)
def test_vectors_are_full_with_half_of_the_terms_that_a_step_has_weights_for(possible, sparse, full):
    guard = TrainingGuard(1000, warm_up=0, learning_rate=1e-4, possible=possible)
    for step in range(1, 10):
        guard.check(step, 1.0, 10.0, sparse)
    for step in range(10, 14):
        guard.check(step, 1.0, 10.0, full)
    with pytest.raises(ValueError, match=f"{full} active terms of 1000"):
        guard.check(14, 1.0, 10.0, full)
