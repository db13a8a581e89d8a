"""Ranking losses and sparsity regularisers."""

import torch


def contrastive_loss(
    queries: torch.Tensor, documents: torch.Tensor, false_negatives: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy of each query's own document against all others in the batch (InfoNCE over dot products, as in
    SPLADE, arXiv 2107.05720, eq. 5).

    Args:
        queries: [batch, vocabulary] weights.
        documents: [documents, vocabulary] weights; document i is query i's positive, those past the batch are
            hard negatives, and each counts as a negative for every other query.
        false_negatives: [batch, documents] bool; True where a document must not count as that query's negative.

    Returns:
        Mean loss, a scalar.
    """
    scores = queries @ documents.T
    if false_negatives is not None:
        scores = scores.masked_fill(false_negatives, float("-inf"))
    return torch.nn.functional.cross_entropy(scores, torch.arange(len(queries), device=scores.device))


def flops_loss(weights: torch.Tensor) -> torch.Tensor:
    """FLOPS regulariser: the sum over terms of the squared mean activation in the batch (Paria et al., arXiv
    2004.05665; SPLADE, eq. 4).

    Args:
        weights: [batch, vocabulary] term weights, not negative.
    """
    return weights.mean(0).square().sum()
