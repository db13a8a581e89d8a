"""What a training has nothing to learn from."""

import pytest

from utils.records import TrainingExample
from utils.training.guards import find_uncompared


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
