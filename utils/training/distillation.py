"""A teacher for the loss over the whole batch: the scores of a fused scorer, at one scale whatever the scorers."""

from collections.abc import Sequence

import numpy as np

from utils.search.scorers import FusedScorer, is_cross_encoder, open_fused_scorer, parse_teachers

TEACHER_DEVIATION = 2.0  # standard deviation that a teacher's scores are scaled to: how peaked its softmax is


def check_batch_teachers(names: Sequence[str]) -> None:
    """Check the names of scorers for BatchTeacher, without loading them.

    Raises:
        ValueError: a wrong weight, a name twice, or a cross-encoder, which is too slow to read each pair of a batch.
        ValueError, OSError: there is no model of that name.
    """
    for name in parse_teachers(names):
        if name != "bm25" and is_cross_encoder(name):
            raise ValueError(
                f"teacher '{name}' is a cross-encoder, too slow for all of a batch; use score_training_data.py and the "
                "loss kl"
            )


class BatchTeacher:
    """Scores all documents of a batch for each of its queries.

    Args:
        names: scorers, `name` or `name=weight`, that `check_batch_teachers` has checked.
        queries, documents: all texts that batches are made of.
        device, threads: where the scorers run.
        language: of the texts, for BM25.

    Attributes:
        scorer: the fused scorer.

    Raises:
        ValueError, OSError, ImportError: see utils.search.scorers.open_scorer.
    """

    def __init__(
        self,
        names: Sequence[str],
        queries: Sequence[str],
        documents: Sequence[str],
        device: str | None = None,
        threads: int | None = None,
        language: str | None = None,
    ) -> None:
        self.scorer: FusedScorer = open_fused_scorer(names, queries, documents, device, threads, language=language)

    def __call__(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [queries, documents] scores; both are given as positions in the lists of all texts."""
        return self.scorer.block_scores(queries, documents) * (TEACHER_DEVIATION / self.scorer.deviation)
