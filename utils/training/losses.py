"""Ranking losses, and sums of them by weight.

All work on dot products of query and document vectors. Losses without a teacher take `scores` [B, D] of each query with
every document of the batch: document i is query i's positive, those past the first B are hard negatives, and each is a
negative for every other query but where `false_negatives` [B, D] is True. Losses with one take `own` and `teacher`
[B, N]: the model's and the teacher's scores of each query's own documents, the positive first; where a query has fewer
than N, the teacher's score is -inf. `kl-batch` is `kl` over all documents of the batch, scored by a teacher at hand.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from utils.arguments import parse_weights

MARGIN = 1.0  # that a positive must be ahead by, in margin ranking


class LossInputs(NamedTuple):
    """What a step's loss is taken of; B queries and B + N documents, of all processes.

    Attributes:
        queries: [B, V] weights.
        documents: [B + N, V] weights; document i is query i's positive, the others are hard negatives.
        false_negatives: [B, B + N], True for documents that are another copy of the query's positive.
        own: with a teacher, [B, 1 + most negatives], which documents are the query's own, the positive first.
        teacher: its scores of them, -inf where a query has fewer.
        query_numbers, document_numbers: [B] and [B + N], which texts they are, where `number_texts` has told.
    """

    queries: torch.Tensor
    documents: torch.Tensor
    false_negatives: torch.Tensor
    own: torch.Tensor | None = None
    teacher: torch.Tensor | None = None
    query_numbers: torch.Tensor | None = None
    document_numbers: torch.Tensor | None = None


def contrastive_loss(scores: torch.Tensor, false_negatives: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each query's own document against all others (InfoNCE, as in SPLADE, arXiv 2107.05720,
    eq. 5)."""
    scores = scores.masked_fill(false_negatives, float("-inf"))
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def margin_ranking_loss(scores: torch.Tensor, false_negatives: torch.Tensor, margin: float = MARGIN) -> torch.Tensor:
    """Mean over queries and their negatives of how much a positive is less than `margin` ahead: the pairwise hinge
    (Joachims 2002, Optimizing search engines using clickthrough data)."""
    counts = ~false_negatives & ~torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    behind = torch.relu(margin - scores.diagonal()[:, None] + scores)
    return (behind * counts).sum() / counts.sum().clamp(min=1)


def margin_mse_loss(own: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over negatives of the squared difference between the model's and the teacher's margin of the positive over
    them (Margin-MSE, Hofstätter et al., arXiv 2010.02666)."""
    present = teacher[:, 1:].isfinite()
    margins = (own[:, :1] - own[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
    return margins.where(present, 0.0).square().sum() / present.sum().clamp(min=1)


def kl_loss(own: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Mean over queries of the divergence of the model's distribution over its documents from the teacher's, whose
    scores are divided by `temperature` (distillation, Hinton et al., arXiv 1503.02531; as in SPLADE-v3, arXiv
    2403.06789)."""
    present = teacher.isfinite()
    target = (teacher / temperature).log_softmax(1)
    found = own.masked_fill(~present, float("-inf")).log_softmax(1)
    return (target.exp() * (target - found)).where(present, 0.0).sum(1).mean()


BATCH_LOSSES = {"contrastive": contrastive_loss, "margin": margin_ranking_loss}
BATCH_TEACHER_LOSS = "kl-batch"
TEACHER_LOSSES = {"margin-mse": margin_mse_loss, "kl": kl_loss}


class RankingLoss:
    """A sum of the losses above by weight.

    Args:
        parts: `name` or `name=weight` of each loss: contrastive, margin, margin-mse, kl, kl-batch.
        temperature: what kl and kl-batch divide the teacher's scores by.

    Attributes:
        teacher: for kl-batch, from (query numbers [B], document numbers [D]) to scores [B, D].

    Raises:
        ValueError: an unknown name, a weight that is not a positive number, or a name twice.
    """

    def __init__(self, parts: Sequence[str], temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.teacher: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
        self.weights = parse_weights(parts, "loss", (*BATCH_LOSSES, *TEACHER_LOSSES, BATCH_TEACHER_LOSS))
        if not self.weights:
            raise ValueError("a loss must be named")

    @property
    def teacher_losses(self) -> list[str]:
        """Those of its losses that need a teacher's scores in the examples."""
        return [name for name in self.weights if name in TEACHER_LOSSES]

    def __call__(self, step: LossInputs) -> torch.Tensor:
        """The loss of a step's queries and documents."""
        scores = step.queries @ step.documents.T
        total = scores.new_zeros(())
        for name, weight in self.weights.items():
            if name in BATCH_LOSSES:
                value = BATCH_LOSSES[name](scores, step.false_negatives)
            elif name == BATCH_TEACHER_LOSS:
                numbers = step.query_numbers.cpu().numpy(), step.document_numbers.cpu().numpy()
                teacher = torch.from_numpy(self.teacher(*numbers)).to(scores)
                value = kl_loss(scores, teacher.masked_fill(step.false_negatives, float("-inf")), self.temperature)
            else:
                options = {"temperature": self.temperature} if name == "kl" else {}
                value = TEACHER_LOSSES[name](scores.gather(1, step.own), step.teacher, **options)
            total = total + weight * value
        return total
