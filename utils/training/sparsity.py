"""What keeps vectors sparse in training: the regularizers, and a controller of their weight, lambda.

Where a number of active terms is asked for, lambda is set by a PI controller: the error is the logarithm of the terms
over those that there should be by now, the integral part moves log lambda a little each step, and the proportional part
adds to it at once.
"""

import math
from collections.abc import Callable

import torch

WARM_UP_SHARE = 1 / 3  # of all steps; a fixed lambda grows over them, as the square of the step
ARRIVAL_SHARE = 0.5  # of all steps; the target moves from the first step's terms to those asked for over them
TERMS_SMOOTHING = 0.5  # weight of the earlier steps in the running geometric mean of the terms
INTEGRAL_GAIN = 0.3  # change of log lambda a step, for each unit of error
PROPORTIONAL_GAIN = 3.0  # change of log lambda for the step at hand, for each unit of error
MIN_LAMBDA, MAX_LAMBDA = 1e-8, 1.0  # bounds of a controlled lambda before the proportional part
INITIAL_LAMBDA = 1e-3  # of a controlled lambda
BIAS_GAIN = 0.2  # change of all logits a step, for each unit of error


def flops_loss(weights: torch.Tensor) -> torch.Tensor:
    """Return the FLOPS regularizer: the sum over terms of the squared mean weight in the batch (Paria et al., arXiv
    2004.05665; SPLADE, eq. 4).

    Args:
        weights: [batch, vocabulary] term weights, not negative.
    """
    return weights.mean(0).square().sum()


def l1_loss(weights: torch.Tensor) -> torch.Tensor:
    """Return the mean over texts of the sum of their term weights [batch, vocabulary]."""
    return weights.sum(1).mean()


REGULARIZERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"flops": flops_loss, "l1": l1_loss}


class SparsityController:
    """The regularization of one side, queries or documents, over a training of `steps` steps.

    Without `target_terms`, lambda grows as the square of the step over the first third of the steps, then stays
    (SPLADE, arXiv 2107.05720, section 4.1). With it, lambda is controlled, so that the mean number of active terms
    goes from what it is at the start, in equal ratios, to the target at half time, and stays there.

    Args:
        weight: lambda, where there is no target.
        steps: of the whole training.
        kind: a name in REGULARIZERS.
        target_terms: active terms of a text, on average.

    Attributes:
        target: `target_terms`.
        terms: running mean of the active terms, None before the first step.
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
    def error(self) -> float:
        """Logarithm of the terms over what they should be by now."""
        progress = min(1.0, self.step / (ARRIVAL_SHARE * self.steps))
        target_now = self.first ** (1 - progress) * self.target**progress
        return math.log(self.terms / target_now)

    @property
    def current_lambda(self) -> float:
        """Lambda of the next step."""
        if not self.target:
            return self.weight * min(1.0, self.step / (WARM_UP_SHARE * self.steps)) ** 2
        return self.weight * math.exp(PROPORTIONAL_GAIN * self.error) if self.terms else self.weight

    def loss(self, weights: torch.Tensor) -> torch.Tensor:
        """Return lambda times the penalty of [batch, vocabulary] term weights."""
        return self.current_lambda * self.penalty(weights)

    def observe(self, terms: float) -> None:
        """Take in the mean number of active terms of a finished step."""
        self.step += 1
        if not self.target:
            return
        terms = max(terms, 0.1)
        self.first = self.first or terms
        mean = terms if self.terms is None else self.terms**TERMS_SMOOTHING * terms ** (1 - TERMS_SMOOTHING)
        self.terms = mean
        self.weight = min(MAX_LAMBDA, max(MIN_LAMBDA, self.weight * math.exp(INTEGRAL_GAIN * self.error)))

    def state_dict(self) -> dict[str, float | None]:
        """Return what a resumed training needs, for `load_state_dict`."""
        return {name: getattr(self, name) for name in ("weight", "step", "first", "terms")}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        """Go on from an earlier training's state."""
        vars(self).update(state_dict)


def bias_shift(queries: SparsityController, documents: SparsityController) -> float:
    """Return what to add to the projection's bias, and so to all logits, after a step; 0 without targets.

    Until half time it raises the logits where there are too few terms even for a lambda near zero. From then on it
    removes the error that the documents' lambda leaves, since a model follows lambda more slowly the further its
    learning rate has fallen. Queries share the bias, and their lambda makes up for the change.
    """
    if documents.target and documents.step > ARRIVAL_SHARE * documents.steps:
        return -BIAS_GAIN * documents.error
    steered = [side for side in (queries, documents) if side.target and side.terms]
    return max(
        (BIAS_GAIN * max(0.0, -side.error) * max(0.0, 1 - side.weight / INITIAL_LAMBDA) for side in steered),
        default=0.0,
    )
