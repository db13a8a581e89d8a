"""Weights rounded to 8 bits for the inputs that documents give them.

Rounding each weight to the nearest step makes its error the smallest, not that of the sums it is part of. Here columns
are rounded one after the other, and what one is off is made up for by those that are still to come, as far as their
inputs go together (GPTQ, Frantar et al., arXiv 2210.17323).
"""

from collections.abc import Sequence

import torch

from utils.console import progress_bar
from utils.splade.encoder import SpladeEncoder
from utils.splade.int8_weights import LARGEST_CODE, quantization_steps

TEXTS = 128  # of the documents, at most, that the inputs are taken from; as many as in the paper
COLUMNS = 128  # rounded before the columns after them are corrected, in one product
DAMPING = 0.01  # share of the inputs' mean square that is added to each square, so that the moments can be inverted


@torch.inference_mode()
def input_moments(encoder: SpladeEncoder, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return, by name, the sum of x x^T over the inputs x of each linear layer, [size, size], for tokens of `texts`.

    Raises:
        ValueError: no text has a token.
    """
    moments: dict[str, torch.Tensor] = {}

    def add(name: str, inputs: torch.Tensor) -> None:
        rows = inputs.flatten(0, -2).float()
        moments[name] = moments.get(name, 0) + rows.T @ rows

    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: add(name, inputs[0]))
        for name, module in encoder.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    try:
        tokens = [ids for ids in encoder.tokenize(texts) if ids]
        for ids in progress_bar(tokens, desc="calibrating", unit="texts"):
            ids = torch.tensor([ids], device=encoder.device)
            encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    if not moments:
        raise ValueError("none of the texts to calibrate with has a token")
    return {name: moment.cpu() for name, moment in moments.items()}


@torch.no_grad()
def round_weights(encoder: SpladeEncoder, moments: dict[str, torch.Tensor]) -> None:
    """Round the weights of an encoder's linear layers, in place, for inputs with these moments."""
    for name, module in encoder.model.named_modules():
        if name in moments:
            module.weight.copy_(round_for_inputs(module.weight, moments[name]))


def round_for_inputs(weight: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """Return weights [rows, size] rounded to multiples of `quantization_steps`, which stay what they were, such that
    sums over inputs with the moments [size, size] change little."""
    left, steps = weight.float().clone(), quantization_steps(weight.float())
    largest = left.abs().argmax(1, keepdim=True)
    limits = (left.gather(1, largest) / steps[:, None]).round()  # which make the steps
    damping = DAMPING * moment.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
    damped = moment.double() + damping * torch.eye(len(moment), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor = torch.linalg.cholesky(inverse, upper=True).float()
    rounded = torch.empty_like(left)
    for first in range(0, left.shape[1], COLUMNS):
        block = slice(first, first + COLUMNS)
        errors = torch.empty_like(left[:, block])
        for column in range(first, min(first + COLUMNS, left.shape[1])):
            codes = (left[:, column] / steps).round().clamp(-LARGEST_CODE, LARGEST_CODE)
            codes = torch.where(largest[:, 0] == column, limits[:, 0], codes)
            rounded[:, column] = codes * steps
            error = (left[:, column] - rounded[:, column]) / factor[column, column]
            errors[:, column - first] = error
            left[:, column + 1 : first + COLUMNS] -= error[:, None] * factor[column, column + 1 : first + COLUMNS]
        left[:, first + COLUMNS :] -= errors @ factor[block, first + COLUMNS :]
    return rounded
