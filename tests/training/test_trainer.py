"""The learning rate over the steps of a training."""

import pytest

from utils.training.trainer import rate_share


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
