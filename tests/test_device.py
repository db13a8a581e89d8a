"""Choosing where to run."""

import pytest
import torch

from utils.device import autocast, resolve_device


def test_the_default_is_the_best_device_here():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert resolve_device().type == resolve_device("auto").type == best


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(ValueError, match="device"):
        resolve_device(name)


def test_precision_by_name():
    assert not torch.is_autocast_enabled("cpu")
    with autocast(torch.device("cpu"), "bfloat16"):
        assert torch.is_autocast_enabled("cpu")
    with autocast(torch.device("cpu"), "float32"):
        assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(ValueError, match="precision"):
        autocast(torch.device("cpu"), "int4")
