"""What keeps vectors sparse in training: regularizers, their warm-up, and lambdas steered to a number of terms."""

import math
from collections.abc import Callable

import torch

WARM_UP_SHARE = 1 / 3  # of the steps, over which a lambda grows
ARRIVAL_SHARE = 0.5  # share of the steps after which the number of terms is to be the target
SMOOTHING = 0.5  # of the observed number of terms, from step to step
INTEGRAL_GAIN, PROPORTIONAL_GAIN = (
    0.3,
    3.0,
)  # by which a lambda follows the logarithm of what is too much: each step, and at once
MIN_LAMBDA, MAX_LAMBDA = 1e-8, 1.0  # a lambda that is steered
INITIAL_LAMBDA = 1e-3  # of a lambda that is steered
BIAS_GAIN = 0.2  # of all logits a step, for each unit of the logarithm of what is missing or too much


def flops_loss(weights: torch.Tensor) -> torch.Tensor:
    """FLOPS regularizer: the sum over terms of the squared mean activation in the batch (Paria et al., arXiv
    2004.05665; SPLADE, eq. 4).

    Args:
        weights: [batch, vocabulary] term weights, not negative.
    """
    return weights.mean(0).square().sum()


def l1_loss(weights: torch.Tensor) -> torch.Tensor:
    """The mean over texts of the sum of their term weights [batch, vocabulary]."""
    return weights.sum(1).mean()


REGULARIZERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"flops": flops_loss, "l1": l1_loss}


class SparsityController:
    """The regularization of one side, queries or documents, over a training of `steps` steps.

    Without a target its lambda grows as the square of the step over the first third, then stays (SPLADE, section 4.1).
    With `target_terms` it is steered instead, so that the mean number of active terms goes from what it is at the
    start, in equal ratios, to the target at half time, and stays there; `bias_shift` helps.
    """

    def __init__(self, weight: float, steps: int, kind: str = "flops", target_terms: float | None = None) -> None:
        self.penalty = REGULARIZERS[kind]
        self.steps = max(1, steps)
        self.target = target_terms
        self.weight = INITIAL_LAMBDA if target_terms else weight
        self.step = 0
        self.first: float | None = None
        self.terms: float | None = None

    @property
    def excess(self) -> float:
        """The logarithm of the terms over what they should be by now."""
        progress = min(1.0, self.step / (ARRIVAL_SHARE * self.steps))
        target_now = self.first ** (1 - progress) * self.target**progress
        return math.log(self.terms / target_now)

    @property
    def current_lambda(self) -> float:
        """Lambda of the step to come."""
        if not self.target:
            return self.weight * min(1.0, self.step / (WARM_UP_SHARE * self.steps)) ** 2
        return self.weight * math.exp(PROPORTIONAL_GAIN * self.excess) if self.terms else self.weight

    def loss(self, weights: torch.Tensor) -> torch.Tensor:
        """Lambda times the penalty of [batch, vocabulary] term weights."""
        return self.current_lambda * self.penalty(weights)

    def observe(self, terms: float) -> None:
        """Tell the mean number of active terms of a step that is done."""
        self.step += 1
        if not self.target:
            return
        terms = max(terms, 0.1)
        self.first = self.first or terms
        self.terms = terms if self.terms is None else self.terms**SMOOTHING * terms ** (1 - SMOOTHING)
        self.weight = min(MAX_LAMBDA, max(MIN_LAMBDA, self.weight * math.exp(INTEGRAL_GAIN * self.excess)))

    def state_dict(self) -> dict[str, float | None]:
        """What a resumed training needs, for `load_state_dict`."""
        return {name: getattr(self, name) for name in ("weight", "step", "first", "terms")}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        vars(self).update(state_dict)


def bias_shift(queries: SparsityController, documents: SparsityController) -> float:
    """What to add to the projection's bias, so to all logits, after a step; 0 without targets.

    Until half time it raises them where there are too few terms even for a lambda near zero. From then on it trims what
    the documents' lambda leaves over, since a model follows a lambda more slowly the further its learning rate has
    fallen; queries share the bias, and their lambda makes up for it.
    """
    if documents.target and documents.step > ARRIVAL_SHARE * documents.steps:
        return -BIAS_GAIN * documents.excess
    steered = [side for side in (queries, documents) if side.target and side.terms]
    return max(
        (BIAS_GAIN * max(0.0, -side.excess) * max(0.0, 1 - side.weight / INITIAL_LAMBDA) for side in steered),
        default=0.0,
    )
