"""Losses on values worked out by hand."""

import math

import pytest
import torch

from utils.training.losses import (
    LossInputs,
    RankingLoss,
    contrastive_loss,
    kl_loss,
    margin_mse_loss,
    margin_ranking_loss,
)

NONE = torch.zeros(2, 3, dtype=torch.bool)
SCORES = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 2.0]])  # the third document is a hard negative of both queries
OWN = torch.tensor([[3.0, 1.0, 2.0], [2.0, 0.0, 7.0]])
TEACHER = torch.tensor([[5.0, 2.0, 5.0], [1.0, 0.0, float("-inf")]])  # the second query has one negative


def test_contrastive_loss_is_the_mean_cross_entropy_of_the_own_document():
    first = -math.log(math.exp(3) / (math.exp(3) + math.exp(0) + math.exp(1)))
    second = -math.log(math.exp(2) / (math.exp(0) + math.exp(2) + math.exp(2)))
    torch.testing.assert_close(contrastive_loss(SCORES, NONE), torch.tensor((first + second) / 2))


def test_masked_documents_do_not_count_as_negatives():
    masked = NONE.clone()
    masked[0, 1:] = True
    second = -math.log(math.exp(2) / (math.exp(0) + math.exp(2) + math.exp(2)))
    torch.testing.assert_close(contrastive_loss(SCORES, masked), torch.tensor(second / 2))
    # pairs left: the second query's with the first document (0 - 2 + 1 < 0) and the third (2 - 2 + 1)
    torch.testing.assert_close(margin_ranking_loss(SCORES, masked), torch.tensor(1 / 2))


def test_margin_ranking_is_the_mean_of_what_positives_lack():
    # 1 - 3 + 0, 1 - 3 + 1 | 1 - 2 + 0, 1 - 2 + 2: only the last is above zero
    torch.testing.assert_close(margin_ranking_loss(SCORES, NONE), torch.tensor(1 / 4))
    torch.testing.assert_close(margin_ranking_loss(SCORES, NONE, margin=3), torch.tensor((0 + 1 + 1 + 3) / 4))


def test_margin_mse_is_the_mean_squared_difference_of_margins():
    # model 2, 1 | 2; teacher 3, 0 | 1
    torch.testing.assert_close(margin_mse_loss(OWN, TEACHER), torch.tensor((1 + 1 + 1) / 3))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl_is_the_divergence_from_the_teachers_distribution(temperature):
    def softmax(values):
        total = sum(math.exp(v) for v in values)
        return [math.exp(v) / total for v in values]

    expected = 0.0
    for own, teacher in (([3, 1, 2], [5, 2, 5]), ([2, 0], [1, 0])):
        target = softmax([v / temperature for v in teacher])
        expected += sum(t * math.log(t / s) for t, s in zip(target, softmax(own))) / 2
    torch.testing.assert_close(kl_loss(OWN, TEACHER, temperature), torch.tensor(expected))


def test_losses_of_a_teacher_have_finite_gradients_where_a_query_has_fewer_negatives():
    for loss in (kl_loss, margin_mse_loss):
        own = OWN.clone().requires_grad_()
        loss(own, TEACHER).backward()
        assert own.grad.isfinite().all() and own.grad[1, 2] == 0 and own.grad.abs().sum() > 0


def test_a_sum_of_losses_weighs_them_and_takes_each_querys_own_documents():
    queries, documents = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 2.0]])
    teacher = torch.tensor([[4.0, 1.0], [2.0, -math.inf]])
    step = LossInputs(queries, documents, 2, NONE, own_documents=torch.tensor([[0, 2], [1, 0]]), teacher=teacher)
    scores = queries @ documents.T
    own = torch.tensor([[3.0, 1.0], [2.0, 0.0]])
    expected = 2 * contrastive_loss(scores, NONE) + 0.5 * kl_loss(own, teacher, 3.0) + margin_mse_loss(own, teacher)
    torch.testing.assert_close(RankingLoss(["contrastive=2", "kl=0.5", "margin-mse"], temperature=3.0)(step), expected)


@pytest.mark.parametrize("parts", [["hinge"], ["kl=x"], ["kl=-1"], ["kl", "kl=2"], [], ["kl=inf"]])
def test_a_sum_that_makes_no_sense_is_refused(parts):
    with pytest.raises(ValueError):
        RankingLoss(parts)
