"""Ranking losses, and weighted sums of them.

All of them compare dot products of query and document vectors. Losses without a teacher take `scores` [B, D], of each
query with every document of the batch: document i is query i's positive, those after the first B are hard negatives,
and each is a negative for every other query unless `false_negatives` [B, D] says that it is not. Losses with a teacher
take the model's and the teacher's scores [B, N] of each query's own documents, the positive first; where a query has
fewer than N, the teacher's score is -inf. `kl-batch` is `kl` over all documents of the batch, which a teacher scores
while the model trains.

To add a loss, write it as a function here and name it in BATCH_LOSSES or TEACHER_LOSSES.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from utils.arguments import parse_weights

MARGIN = 1.0  # dot product; how far ahead of a negative the hinge wants the positive


class LossInputs(NamedTuple):
    """What a step's loss is computed from: B queries, S further queries of their positives, and B + N documents, of all
    processes.

    Attributes:
        queries: [B + S, V] weights.
        documents: [B + N, V] weights; document i is query i's positive, the others are hard negatives.
        examples: B.
        false_negatives: [B + S, B + N], True for documents that the query is not compared with: its positives but for
            the row's own one, and that one where the query stands in it.
        own_documents: with teacher's scores in the examples, [B, 1 + most negatives], positions of the query's own
            documents, the positive first.
        teacher: [B, 1 + most negatives] its scores of them, -inf where a query has fewer.
        query_indices, document_indices: [B + S] and [B + N], the numbers of the texts among all.
    """

    queries: torch.Tensor
    documents: torch.Tensor
    examples: int
    false_negatives: torch.Tensor
    own_documents: torch.Tensor | None = None
    teacher: torch.Tensor | None = None
    query_indices: torch.Tensor | None = None
    document_indices: torch.Tensor | None = None


def contrastive_loss(scores: torch.Tensor, false_negatives: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of each query's own document against all others (InfoNCE, as in SPLADE, arXiv
    2107.05720, eq. 5)."""
    scores = scores.masked_fill(false_negatives, float("-inf"))
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def margin_ranking_loss(scores: torch.Tensor, false_negatives: torch.Tensor, margin: float = MARGIN) -> torch.Tensor:
    """Return the pairwise hinge, max(0, margin - positive + negative), averaged over all negatives of all queries
    (Joachims 2002, Optimizing search engines using clickthrough data)."""
    counts = ~false_negatives & ~torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
    behind = torch.relu(margin - scores.diagonal()[:, None] + scores)
    return (behind * counts).sum() / counts.sum().clamp(min=1)


def margin_mse_loss(own_scores: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean over negatives of the squared difference between the model's and the teacher's margin of the
    positive over them (Margin-MSE, Hofstätter et al., arXiv 2010.02666)."""
    present = teacher[:, 1:].isfinite()
    margins = (own_scores[:, :1] - own_scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
    return margins.where(present, 0.0).square().sum() / present.sum().clamp(min=1)


def kl_loss(own_scores: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the mean over queries of KL(teacher || model) between their softmax distributions over the query's
    documents; the teacher's scores are divided by `temperature` (distillation, Hinton et al., arXiv 1503.02531; as in
    SPLADE-v3, arXiv 2403.06789). Queries with fewer than two documents count for nothing."""
    compared = teacher.isfinite().sum(1) > 1
    own_scores, teacher = own_scores[compared], teacher[compared]
    if not len(teacher):
        return own_scores.sum()
    present = teacher.isfinite()
    target = (teacher / temperature).log_softmax(1)
    student = own_scores.masked_fill(~present, float("-inf")).log_softmax(1)
    return (target.exp() * (target - student)).where(present, 0.0).sum(1).mean()


BATCH_LOSSES = {"contrastive": contrastive_loss, "margin": margin_ranking_loss}
BATCH_TEACHER_LOSS = "kl-batch"
TEACHER_LOSSES = {"margin-mse": margin_mse_loss, "kl": kl_loss}


class RankingLoss:
    """A weighted sum of ranking losses.

    Args:
        parts: `name` or `name=weight` of each loss: contrastive, margin, margin-mse, kl, kl-batch.
        temperature: divides the teacher's scores in kl and kl-batch.

    Attributes:
        weights: by the loss's name.
        teacher: for kl-batch, (query indices [B], document indices [D]) -> scores [B, D].

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
        """Names of those losses that need a teacher's scores in the examples."""
        return [name for name in self.weights if name in TEACHER_LOSSES]

    def __call__(self, inputs: LossInputs) -> torch.Tensor:
        """Return the weighted sum, a scalar with a gradient."""
        scores = inputs.queries @ inputs.documents.T
        own_scores = scores[: inputs.examples]
        total = scores.new_zeros(())
        for name, weight in self.weights.items():
            if name in BATCH_LOSSES:
                value = BATCH_LOSSES[name](own_scores, inputs.false_negatives[: inputs.examples])
            elif name == BATCH_TEACHER_LOSS:
                indices = inputs.query_indices.cpu().numpy(), inputs.document_indices.cpu().numpy()
                teacher = torch.from_numpy(self.teacher(*indices)).to(scores)
                value = kl_loss(scores, teacher.masked_fill(inputs.false_negatives, float("-inf")), self.temperature)
            else:
                options = {"temperature": self.temperature} if name == "kl" else {}
                value = TEACHER_LOSSES[name](own_scores.gather(1, inputs.own_documents), inputs.teacher, **options)
            total = total + weight * value
        return total
