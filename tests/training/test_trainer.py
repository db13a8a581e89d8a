"""The learning rate over the steps of a training, and the random state of cached steps."""

import pytest
import torch

from utils.training.trainer import _random_state, _set_random_state, rate_share


@pytest.mark.parametrize(
    ("steps", "ratio", "shares"),
    [
        (1, 0.1, [1]),
        (1, 1, [1]),
        (2, 0.5, [1 / 2, 1]),
        (4, 0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (6, 0.5, [1 / 4, 2 / 4, 3 / 4, 1, 2 / 3, 1 / 3]),
        (4, 1, [1 / 4, 2 / 4, 3 / 4, 1]),
    ],
)
def test_the_rate_grows_over_the_warm_up_and_falls_over_the_rest(steps, ratio, shares):
    assert [rate_share(step, steps, ratio) for step in range(steps)] == pytest.approx(shares)


def test_a_part_of_a_cached_step_is_repeated_with_the_random_state_of_apples_gpu(monkeypatch):
    generator = torch.Generator()  # stands for that of MPS
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)
    device = torch.device("mps")
    state = _random_state(device)
    first = torch.rand(3), torch.rand(3, generator=generator)
    _set_random_state(state, device)
    again = torch.rand(3), torch.rand(3, generator=generator)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
