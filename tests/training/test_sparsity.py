"""Regularizers by hand, and lambdas on a model of how a model follows them."""

import math

import pytest
import torch

from utils.training.sparsity import SparsityController, flops_loss, l1_loss

WEIGHTS = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])


def test_flops_is_the_sum_of_squared_mean_activations():
    assert flops_loss(WEIGHTS).item() == 2.0**2 + 0.0 + 1.0**2


def test_l1_is_the_mean_sum_of_weights():
    assert l1_loss(WEIGHTS).item() == (3 + 3) / 2


def test_lambda_grows_as_the_square_of_the_step_over_the_first_third():
    sparsity = SparsityController(0.9, steps=30)
    seen = []
    for _ in range(30):
        seen.append(sparsity.current_lambda)
        sparsity.observe(100)
    assert seen[0] == 0 and seen[5] == pytest.approx(0.9 / 4) and seen[10:] == [0.9] * 20
    sparsity = SparsityController(0.9, steps=3)
    sparsity.observe(100)
    assert sparsity.loss(WEIGHTS).item() == pytest.approx(0.9 * 5)


@pytest.mark.parametrize("start", [30, 250, 15_000])
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_a_steered_lambda_arrives_at_its_target_whatever_lambda_means_to_the_model(start, strength):
    sparsity = SparsityController(1e-3, steps=400, target_terms=120)
    terms = float(start)
    for _ in range(400):
        # the ranking loss pulls towards more terms, the regularizer, stronger where there are more, towards fewer
        terms *= math.exp(0.03 - 0.03 * strength * 1000 * sparsity.current_lambda * terms / 120)
        terms = min(30_000.0, max(1.0, terms))
        sparsity.observe(terms)
    assert terms == pytest.approx(120, rel=0.05)


def test_a_restored_lambda_goes_on_where_it_was():
    first, second = (SparsityController(1e-3, steps=20, target_terms=50) for _ in range(2))
    for terms in (200, 180, 150):
        first.observe(terms)
    second.load_state_dict(first.state_dict())
    assert second.current_lambda == first.current_lambda and second.state_dict() == first.state_dict()
