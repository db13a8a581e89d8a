"""Notices within a few steps that a training goes wrong, and says what to change."""

import math
from typing import Any

PATIENCE = 5  # steps in a row that something is wrong for before the training stops
EMPTY = 1.0  # active terms of a text, on average, below which vectors count as empty
FULL = 0.5  # share of the vocabulary, above which they count as not sparse at all


class Guard:
    """Watches the steps of a training.

    Args:
        vocabulary: the model's number of terms.
        warm_up: first steps in which a plain masked language model, which begins full, may still be full.
        learning_rate: for the message.
    """

    def __init__(self, vocabulary: int, warm_up: float, learning_rate: float) -> None:
        self.vocabulary, self.warm_up, self.learning_rate = vocabulary, warm_up, learning_rate
        self.first_terms: float | None = None  # active terms of a document in the first step
        self.trouble = {"empty": 0, "full": 0}  # steps in a row

    def check(self, step: int, loss: float, query_terms: float, doc_terms: float) -> None:
        """Look at a step, counted from 1: its loss and the mean active terms of its queries and documents.

        Raises:
            ValueError: the loss is no number, or vectors have been empty or full for PATIENCE steps.
        """
        if not math.isfinite(loss):
            raise ValueError(
                f"step {step}: the loss is {loss}; lower --learning-rate (now {self.learning_rate:g}), or try "
                "--precision float32"
            )
        self.first_terms = self.first_terms or doc_terms
        begins = step <= self.warm_up and doc_terms <= 1.1 * self.first_terms
        now = {
            "empty": min(query_terms, doc_terms) < EMPTY,
            "full": doc_terms > FULL * self.vocabulary and not begins,
        }
        advice = {
            "empty": f"nearly all vectors are empty ({query_terms:.1f} terms a query, {doc_terms:.1f} a document); "
            "lower --lambda-d, --lambda-q or --learning-rate, or say --target-doc-terms and --target-query-terms",
            "full": f"documents have {doc_terms:.0f} active terms of {self.vocabulary}; raise --lambda-d and "
            "--lambda-q, or say --target-doc-terms and --target-query-terms",
        }
        for kind, seen in now.items():
            self.trouble[kind] = self.trouble[kind] + 1 if seen else 0
            if self.trouble[kind] >= PATIENCE:
                raise ValueError(f"step {step}: {advice[kind]}")

    def state(self) -> dict[str, Any]:
        """What a resumed training needs, for `restore`."""
        return {"first_terms": self.first_terms, "trouble": self.trouble}

    def restore(self, state: dict[str, Any]) -> None:
        self.first_terms, self.trouble = state["first_terms"], state["trouble"]
