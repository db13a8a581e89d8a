"""Directions: the terms that a text may make active are found on the CPU from half of the products or fewer.

Hidden states of a language model fill their space unevenly, and so do its terms. In a basis of the directions in which
both are large, the first ones alone tell of most terms that no token can make them active: with a state h, the mean m
of states, and a term w, where 1 stands for the first directions of h - m and of w, and 2 for the others,

    h . w  <=  m . w + h1 . w1 + |h2| |w2|

The right side is one product in which the two norms are a further dimension. It is computed in 8 bits as head_cpu.py
describes, and only terms that it leaves are computed from all dimensions. Exact search for the largest products has
bounds of this kind (FEXIPRO: Li, Chan, Yiu and Mamoulis, SIGMOD 2017). The basis is that of the singular value
decomposition of the products of all states with all terms, which leaves the least of them for the others: of
SPLADE-tiny's 128 directions the first 64 leave 8 to 21 % of the terms, those of principal components 23 to 48 %.
Directions take a byte for each of a term's dimensions and directions, and 16 more.
"""

import itertools
import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import torch

from utils.splade import kernels

NEEDED_TOKENS = 128  # for each dimension, before directions are chosen: about as many win back what that costs
SURVEYED = 1 / 4  # share of these tokens, the last ones, that the choice is made by
BATCH_TOKENS = 256  # fewest in a batch that counts: a single query must not wait for a choice
SAMPLE_TERMS, SAMPLE_TOKENS = 2048, 1024  # by which the number of directions is chosen
BLOCK_TERMS = 16_384  # rotated at a time, whole panels; bounds memory, float32 [terms, size]
UNIT = 16  # directions are a multiple of it, with the norm of the others
OVERHEAD = 0.03  # cost of rotating states, as a share of that of the products without directions
LEFT_COST = 1.5  # of a term that is left, whose codes have to be gathered, as a multiple of a term's without directions
MEAN_ROUNDING = 1e-6  # covers what float32 rounds in products with the mean, as a share of the product of the norms
MEAN_BATCHES = 20  # that the running mean of the cost is over
WORTHWHILE = 0.9  # cost, as a share of that without directions, up to which they are used


class Directions(NamedTuple):
    """The terms of a vocabulary in the first directions."""

    tensors: list[torch.Tensor]  # as `find` in cpp/head.cpp has them
    count: int  # of directions, with the norm of the others
    size: int  # of all dimensions

    def cost(self, share: float) -> float:
        """Return the cost where they leave this share of the terms, as a share of that without directions."""
        return _cost(self.count, self.size, share)


class Survey:
    """Survey of the states that a head is given, until there are enough of them to choose directions.

    Args:
        size: dimensions of the states.
    """

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._needed = NEEDED_TOKENS * size
        self._begin(size)

    def _begin(self, size: int) -> None:
        self._tokens = self._surveyed = 0
        self._sum, self._squares = torch.zeros(size), torch.zeros(size, size)
        self._directions: Directions | None = None
        self._cost = WORTHWHILE  # running mean over batches

    def directions(
        self, hidden: torch.Tensor, lengths: Sequence[int], weight: torch.Tensor, bias: torch.Tensor | None
    ) -> Directions | None:
        """Return the directions for a head; None while too few states are known, and where there are none that pay.

        Args:
            hidden: [tokens, size] float32 states of texts, which the survey takes in.
            lengths: tokens of each text.
            weight: [vocabulary, size] float32.
            bias: [vocabulary] float32 or None.
        """
        if self._tokens < self._needed and len(hidden) >= BATCH_TOKENS and self._lock.acquire(blocking=False):
            try:  # other threads go on without directions meanwhile
                with torch.no_grad(), torch.autocast("cpu", enabled=False):
                    if self._tokens < self._needed and hidden.isfinite().all():
                        self._take_in(hidden, lengths, weight, bias)
            finally:
                self._lock.release()
        return self._directions

    def _take_in(self, hidden: torch.Tensor, lengths: Sequence[int], *head: torch.Tensor | None) -> None:
        tokens = self._tokens + len(hidden)
        if tokens >= (1 - SURVEYED) * self._needed:
            self._surveyed += len(hidden)
            self._sum = self._sum + hidden.sum(0)
            self._squares = torch.addmm(self._squares, hidden.T, hidden)
        if tokens >= self._needed:
            mean = self._sum / self._surveyed
            covariance = self._squares / self._surveyed - mean[:, None] * mean
            self._directions = choose_directions(mean, covariance, hidden, lengths, *head)
        self._tokens = tokens  # last, because other threads read it first

    def report(self, used: Directions, share: float) -> None:
        """Begin anew, with twice as many states, where directions leave so many terms, on the mean of the last batches,
        that they cost more than they save: the texts are others now."""
        with self._lock:
            if used is self._directions:
                self._cost += (used.cost(share) - self._cost) / MEAN_BATCHES
                if self._cost > 1:
                    self._needed *= 2
                    self._begin(used.size)


def choose_directions(
    mean: torch.Tensor,
    covariance: torch.Tensor,
    hidden: torch.Tensor,
    lengths: Sequence[int],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> Directions | None:
    """Return the directions of the least cost for the first of these texts; None if there are none that pay.

    Args:
        mean: [size], of states.
        covariance: [size, size], of states.
        hidden, lengths, weight, bias: see `Survey.directions`.
    """
    size = len(mean)
    sample = weight[:: math.ceil(len(weight) / BLOCK_TERMS)]
    moments = sample.T @ sample / len(sample)
    if not (covariance.isfinite().all() and moments.isfinite().all()):
        return None
    of_states, of_terms = _bases(covariance, moments)
    shift = -of_states @ mean
    base = weight @ mean if bias is None else torch.addmv(bias, weight, mean)
    base += MEAN_ROUNDING * mean.norm() * weight.norm(dim=1)
    texts = [text for text in hidden.split(list(lengths)) if len(text)]
    within = [end <= SAMPLE_TOKENS for end in itertools.accumulate(map(len, texts))]
    states = [torch.addmm(shift, text, of_states.T) for text in itertools.compress(texts, [True, *within[1:]])]
    every = math.ceil(len(weight) / SAMPLE_TERMS)
    terms = weight[::every] @ of_terms.T

    def cost(count: int) -> float:
        first = _keep_first(terms, count).T
        largest = torch.stack([(_keep_first(text, count) @ first).amax(0) for text in states])
        return _cost(count, size, (largest + base[::every] > 0).float().mean().item())

    counts = range(UNIT, size, math.ceil(size / 16 / UNIT) * UNIT)
    count = min(counts, key=cost, default=0)
    if not count or cost(count) > WORTHWHILE:
        return None
    blocks = [kernels.pack(_keep_first(block @ of_terms.T, count)) for block in weight.split(BLOCK_TERMS)]
    rotation = kernels.pack_floats(of_states).values
    rows = kernels.unpack_codes(kernels.pack(weight), weight.shape)
    return Directions([*map(torch.cat, zip(*blocks)), rows, base, rotation, shift], count, size)


def _bases(states: torch.Tensor, terms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the bases, each [size, size] with a direction in each row, of states and of terms with these matrices of
    second moments [size, size]. Products in them are the same, and each direction is as large in states as in terms,
    the largest first: that of the singular value decomposition of the products of both."""
    sizes, axes = torch.linalg.eigh(terms.double())
    sizes = sizes.clamp(min=max(1e-7 * sizes[-1].item(), 1e-30)).sqrt()  # fewer terms than dimensions have zeros
    factor = axes * sizes
    values, vectors = (part.flip(-1) for part in torch.linalg.eigh(factor.T @ states.double() @ factor))
    scale = values.clamp(min=max(1e-8 * values[0].item(), 1e-30)).pow(1 / 4)  # neither basis is nearly singular
    of_states = factor @ (vectors / scale)
    of_terms = (axes / sizes) @ (vectors * scale)
    return of_states.T.float(), of_terms.T.float()


def _keep_first(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first count - 1 columns, and the norm of the others."""
    return torch.cat([rows[:, : count - 1], rows[:, count - 1 :].norm(dim=1, keepdim=True)], dim=1)


def _cost(count: int, size: int, share: float) -> float:
    return count / size + LEFT_COST * share + OVERHEAD
