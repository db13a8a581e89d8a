"""Losses on values worked out by hand."""

import math

import torch

from utils.losses import contrastive_loss, flops_loss


def test_contrastive_loss_is_the_mean_cross_entropy_of_the_own_document():
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    documents = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # the third is a hard negative of both
    first = -math.log(math.exp(3) / (math.exp(3) + math.exp(0) + math.exp(1)))
    second = -math.log(math.exp(2) / (math.exp(0) + math.exp(2) + math.exp(2)))
    torch.testing.assert_close(contrastive_loss(queries, documents), torch.tensor((first + second) / 2))


def test_masked_documents_do_not_count_as_negatives():
    queries = torch.eye(2)
    documents = torch.tensor([[1.0, 0.0], [5.0, 1.0]])
    masked = torch.tensor([[False, True], [False, False]])
    second = -math.log(math.e / (math.e + 1))
    torch.testing.assert_close(contrastive_loss(queries, documents, masked), torch.tensor(second / 2))


def test_flops_is_the_sum_of_squared_mean_activations():
    weights = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert flops_loss(weights).item() == 2.0**2 + 0.0 + 1.0**2
