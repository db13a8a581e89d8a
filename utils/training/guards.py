"""Stops a training that goes wrong, before it begins or within a few steps, and says what to change."""

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from utils.documents.normalization import text_key
from utils.records import TrainingExample
from utils.splade.encoder import SpladeEncoder
from utils.training.losses import TEACHER_LOSSES

PATIENCE_STEPS = 5  # steps in a row with the same trouble, after which the training stops
MIN_TERMS = 1.0  # mean active terms of a text below which vectors count as empty
MAX_VOCABULARY_SHARE = 0.5  # share of the terms that a step has weights for, above which vectors are not sparse
MIN_FULL_SHARE = 0.1  # share of the vocabulary up to which they are, however few these terms are
UNTRAINED_SHARE = 0.05  # the same for a model that has not learned to make sparse ones; SPLADE models are at 0.01

SAMPLE_TEXTS = 8  # texts whose vectors show whether the model makes sparse ones


class Uncompared(NamedTuple):
    """Examples whose query is compared with its positive document alone, of which a ranking loss learns nothing.

    Attributes:
        count: how many there are.
        reason: for a message, why, and what to do.
        by_setting: whether it is a setting that leaves out what the examples hold.
    """

    count: int
    reason: str = ""
    by_setting: bool = False


def find_uncompared(examples: Sequence[TrainingExample], losses: Collection[str], step: int) -> Uncompared:
    """Find the examples without a comparison, for `losses` by name and `step` queries, at least, in a step of all
    processes."""
    own_alone = [name for name in losses if name in TEACHER_LOSSES]
    queries = {text_key(e.query) for e in examples}
    positives = {e.positive_id or text_key(e.positive_document) for e in examples}
    alike = min(len(queries), len(positives)) == 1
    if alike:
        reason = "all have one query or one positive document; add others"
    elif len(own_alone) == len(losses):
        reason = f"loss '{own_alone[0]}' compares a query's own documents; mine some by score_training_data.py"
    elif step == 1:
        reason = "a step has one query; raise `batch_size`"
    else:
        return Uncompared(0)
    count = sum(not any(map(str.strip, example.negatives)) for example in examples)
    reason = f"{count:,} of {len(examples):,} examples have no negative_documents, and {reason}"
    return Uncompared(count, reason, by_setting=not alike)


def starts_dense(encoder: SpladeEncoder, examples: Sequence[TrainingExample]) -> bool:
    """Return whether the model's vectors of the first few examples' documents are as dense as those of a plain masked
    language model, which has not been trained to make sparse ones."""
    vectors = encoder.encode([example.positive_document for example in examples[:SAMPLE_TEXTS]])
    terms = [len(vector.indices) for vector in vectors if len(vector.indices)]
    return bool(terms) and sum(terms) / len(terms) > UNTRAINED_SHARE * encoder.vocabulary_size


class TrainingGuard:
    """Watches the loss and the active terms of a training's steps.

    Args:
        vocabulary: the model's number of terms.
        warm_up: number of first steps in which a plain masked language model, whose vectors start dense, may still have
            dense ones.
        learning_rate: for the message.
        possible: number of terms that steps have weights for; None for all. Of those of a few texts, half is sparse.
    """

    def __init__(self, vocabulary: int, warm_up: float, learning_rate: float, possible: int | None = None) -> None:
        self.vocabulary, self.warm_up, self.learning_rate = vocabulary, warm_up, learning_rate
        self.max_terms = max(MAX_VOCABULARY_SHARE * (possible or vocabulary), MIN_FULL_SHARE * vocabulary)
        self.first_terms: float | None = None  # active terms of a document in the first step
        self.steps_in_a_row = {"empty": 0, "full": 0}  # by kind of trouble

    def check(self, step: int, loss: float, query_terms: float, doc_terms: float) -> None:
        """Check a step, counted from 1: its loss and the mean active terms of its queries and documents.

        Raises:
            ValueError: the loss is no number, or vectors have been empty or full for PATIENCE_STEPS.
        """
        if not math.isfinite(loss):
            raise ValueError(
                f"step {step}: the loss is {loss}; lower `learning_rate` (now {self.learning_rate:g}), or try "
                "`precision='float32'`"
            )
        self.first_terms = self.first_terms or doc_terms
        still_dense = step <= self.warm_up and doc_terms <= 1.1 * self.first_terms
        trouble = {
            "empty": min(query_terms, doc_terms) < MIN_TERMS,
            "full": doc_terms > self.max_terms and not still_dense,
        }
        advice = {
            "empty": f"nearly all vectors are empty ({query_terms:.1f} terms a query, {doc_terms:.1f} a document); "
            "lower `lambda_d`, `lambda_q` or `learning_rate`, or say `target_doc_terms` and `target_query_terms`",
            "full": f"documents have {doc_terms:.0f} active terms of {self.vocabulary}; raise `lambda_d` and "
            "`lambda_q`, or say `target_doc_terms` and `target_query_terms`",
        }
        for kind, seen in trouble.items():
            self.steps_in_a_row[kind] = self.steps_in_a_row[kind] + 1 if seen else 0
            if self.steps_in_a_row[kind] >= PATIENCE_STEPS:
                raise ValueError(f"step {step}: {advice[kind]}")

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs, for `load_state_dict`."""
        return {"first_terms": self.first_terms, "trouble": self.steps_in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from an earlier training's state."""
        self.first_terms, self.steps_in_a_row = state_dict["first_terms"], state_dict["trouble"]
