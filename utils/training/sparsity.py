"""What keeps vectors sparse in training: regularisers, their warm-up, and lambdas steered to a number of terms."""

import math
from collections.abc import Callable

import torch

WARM_UP = 1 / 3  # of the steps, over which a lambda grows
ARRIVE = 0.5  # share of the steps after which the number of terms is to be the target
SMOOTHING = 0.5  # of the observed number of terms, from step to step
GAIN, HASTE = 0.3, 3.0  # by which a lambda follows the logarithm of what is too much: each step, and at once
LOWEST, HIGHEST = 1e-8, 1.0  # a lambda that is steered
START = 1e-3  # of a lambda that is steered
LIFT = 0.2  # of all logits a step, for each unit of the logarithm of what is missing or too much


def flops_loss(weights: torch.Tensor) -> torch.Tensor:
    """FLOPS regulariser: the sum over terms of the squared mean activation in the batch (Paria et al., arXiv
    2004.05665; SPLADE, eq. 4).

    Args:
        weights: [batch, vocabulary] term weights, not negative.
    """
    return weights.mean(0).square().sum()


def l1_loss(weights: torch.Tensor) -> torch.Tensor:
    """The mean over texts of the sum of their term weights [batch, vocabulary]."""
    return weights.sum(1).mean()


REGULARISERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"flops": flops_loss, "l1": l1_loss}


class Sparsity:
    """The regularisation of one side, queries or documents, over a training of `steps` steps.

    Without a target its lambda grows as the square of the step over the first third, then stays (SPLADE, section 4.1).
    With `target_terms` it is steered instead, so that the mean number of active terms goes from what it is at the
    start, in equal ratios, to the target at half time, and stays there; `bias_shift` helps.
    """

    def __init__(self, weight: float, steps: int, kind: str = "flops", target_terms: float | None = None) -> None:
        self.penalty = REGULARISERS[kind]
        self.steps = max(1, steps)
        self.target = target_terms
        self.weight = START if target_terms else weight
        self.step = 0
        self.first: float | None = None
        self.terms: float | None = None

    @property
    def excess(self) -> float:
        """The logarithm of the terms over what they should be by now."""
        way = min(1.0, self.step / (ARRIVE * self.steps))
        due = self.first ** (1 - way) * self.target**way
        return math.log(self.terms / due)

    @property
    def weight_now(self) -> float:
        """Lambda of the step to come."""
        if not self.target:
            return self.weight * min(1.0, self.step / (WARM_UP * self.steps)) ** 2
        return self.weight * math.exp(HASTE * self.excess) if self.terms else self.weight

    def loss(self, weights: torch.Tensor) -> torch.Tensor:
        """Lambda times the penalty of [batch, vocabulary] term weights."""
        return self.weight_now * self.penalty(weights)

    def observe(self, terms: float) -> None:
        """Tell the mean number of active terms of a step that is done."""
        self.step += 1
        if not self.target:
            return
        terms = max(terms, 0.1)
        self.first = self.first or terms
        self.terms = terms if self.terms is None else self.terms**SMOOTHING * terms ** (1 - SMOOTHING)
        self.weight = min(HIGHEST, max(LOWEST, self.weight * math.exp(GAIN * self.excess)))

    def state(self) -> dict[str, float | None]:
        """What a resumed training needs, for `restore`."""
        return {name: getattr(self, name) for name in ("weight", "step", "first", "terms")}

    def restore(self, state: dict[str, float | None]) -> None:
        vars(self).update(state)


def bias_shift(queries: Sparsity, documents: Sparsity) -> float:
    """What to add to the projection's bias, so to all logits, after a step; 0 without targets.

    Until half time it raises them where there are too few terms even for a lambda near zero. From then on it trims what
    the documents' lambda leaves over, since a model follows a lambda more slowly the further its learning rate has
    fallen; queries share the bias, and their lambda makes up for it.
    """
    if documents.target and documents.step > ARRIVE * documents.steps:
        return -LIFT * documents.excess
    steered = [side for side in (queries, documents) if side.target and side.terms]
    return max((LIFT * max(0.0, -side.excess) * max(0.0, 1 - side.weight / START) for side in steered), default=0.0)
