"""A teacher for the loss over the whole batch: the scores of a fused scorer, at one scale whatever the scorers.

The model that the training begins with is one of the scorers: what it knows of language in general is kept so, while
the others add what it does not know of these documents.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch

from utils.arguments import parse_weights
from utils.device import release_memory
from utils.search.scorers import FusedScorer, is_cross_encoder, open_scorer, splade_scorer
from utils.splade.encoder import SpladeEncoder
from utils.training.tokenization import TokenizedExamples

UNTUNED = "untuned"  # name of the model that the training begins with, among the teachers
BLOCK_IDS = 1 << 20  # gone through at a time; bounds memory, int64 [ids]
TEACHER_DEVIATION = 2.0  # standard deviation that a teacher's scores are scaled to: how peaked its softmax is


def check_batch_teachers(names: Sequence[str]) -> None:
    """Check the names of scorers for BatchTeacher, without loading them.

    Raises:
        ValueError: a wrong weight, a name twice, or a cross-encoder, which is too slow to read each pair of a batch.
        ValueError, OSError: there is no model of that name.
    """
    for name in parse_weights(names, "teacher"):
        if name not in ("bm25", UNTUNED) and is_cross_encoder(name):
            raise ValueError(
                f"teacher '{name}' is a cross-encoder, too slow for all of a batch; use score_training_data.py and the "
                "loss kl"
            )


class BatchTeacher:
    """Scores all documents of a batch for each of its queries.

    Args:
        names: scorers, `name` or `name=weight`, that `check_batch_teachers` has checked.
        encoder: the model that the training begins with, which is a further scorer, of weight 1 unless `untuned=weight`
            is among the names; None for one whose vectors are worth nothing yet.
        queries, documents: all texts that batches are made of.
        device, threads: where the other scorers run.
        language: of the texts, for BM25.

    Attributes:
        scorer: the fused scorer.

    Raises:
        ValueError, OSError, ImportError: see utils.search.scorers.open_scorer.
    """

    def __init__(
        self,
        names: Sequence[str],
        encoder: SpladeEncoder | None,
        queries: Sequence[str],
        documents: Sequence[str],
        device: str | None = None,
        threads: int | None = None,
        language: str | None = None,
    ) -> None:
        weights = parse_weights(names, "teacher")
        if encoder is None:
            weights.pop(UNTUNED, None)
        else:
            encoder.eval()
            weights = {UNTUNED: 1.0} | weights
        if not weights:
            raise ValueError(f"teacher '{UNTUNED}': the model makes no sparse vectors yet; name another, such as bm25")
        scorers = {}
        # The untuned model last, so that its vectors are not beside BM25's lists of terms.
        for name in reversed(weights):
            scorers[name] = (
                splade_scorer(name, encoder, queries, documents)
                if name == UNTUNED
                else open_scorer(name, queries, documents, device, threads, language=language)
            )
            release_memory()
        options = list(weights.values()), len(queries), len(documents)
        self.scorer = FusedScorer([scorers[name] for name in weights], *options)

    @property
    def document_vectors(self) -> np.ndarray | scipy.sparse.csr_array:
        """[documents, dimensions] vectors of the first scorer."""
        return self.scorer.scorers[0].documents

    def terms(self, examples: TokenizedExamples) -> torch.Tensor | None:
        """Return the ids, ascending, of the vocabulary's terms that any text of the examples holds, or that the model
        as it comes gives one; None without that model. Weights of other terms are zero when the training begins, and
        a step that leaves them out is the faster the fewer terms a collection has."""
        untuned = self.scorer.scorers[0]
        if untuned.name != UNTUNED:
            return None
        present = np.zeros(untuned.documents.shape[1], bool)
        for ids in (examples.queries.ids, examples.documents.ids, untuned.queries.indices, untuned.documents.indices):
            for start in range(0, len(ids), BLOCK_IDS):
                present[ids[start : start + BLOCK_IDS]] = True
        return torch.from_numpy(present.nonzero()[0])

    def __call__(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Return [queries, documents] scores; both are given as positions in the lists of all texts."""
        return self.scorer.block_scores(queries, documents) * (TEACHER_DEVIATION / self.scorer.deviation)
