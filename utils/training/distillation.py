"""A teacher for the loss over the whole batch: the scores of a fused scorer, at one scale whatever the scorers."""

from collections.abc import Sequence

import numpy as np

from utils.search.scorers import FusedScorer, VectorScorer, open_fused_scorer

TEACHER_DEVIATION = 2.0  # standard deviation that a teacher's scores are scaled to: how peaked its softmax is


class BatchTeacher:
    """Scores all documents of a batch for each of its queries.

    Args:
        names: scorers, `name` or `name=weight`; see utils.search.scorers.
        queries, documents: all texts that batches are made of.
        device, threads: where the scorers run.

    Attributes:
        scorer: the fused scorer.

    Raises:
        ValueError: a cross-encoder, which is too slow to read each pair of a batch.
        ValueError, OSError, ImportError: see utils.search.scorers.open_scorer.
    """

    def __init__(
        self,
        names: Sequence[str],
        queries: Sequence[str],
        documents: Sequence[str],
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.scorer: FusedScorer = open_fused_scorer(names, queries, documents, device, threads)
        for part in self.scorer.scorers:
            if not isinstance(part, VectorScorer):
                raise ValueError(
                    f"teacher '{part.name}' is a cross-encoder, too slow for all of a batch; use "
                    "score_training_data.py and the loss kl"
                )

    def __call__(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [queries, documents] scores; both are given as positions in the lists of all texts."""
        return self.scorer.block_scores(queries, documents) * (TEACHER_DEVIATION / self.scorer.deviation)
