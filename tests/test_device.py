"""Choosing where to run."""

import pytest
import torch

from utils import device
from utils.device import autocast, compute_dtype, resolve_device


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
    with pytest.raises(ValueError, match="for cuda and mps"):
        autocast(torch.device("cpu"), "float16")


def test_float16_is_asked_of_an_accelerator():
    assert compute_dtype(torch.device("mps"), "float16") == torch.float16
    assert compute_dtype(torch.device("mps"), "int8") == compute_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("asked, environment, expected", [(1, None, 1), (None, "2", 2), (None, None, 2)])
def test_threads_are_those_asked_for_or_the_cores_of_the_process(asked, environment, expected, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "available_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    try:
        torch.set_num_threads(2 if environment else 64)
        device.use_threads(asked)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_a_container_may_use_no_more_than_its_share(monkeypatch):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda pid: set(range(32)), raising=False)
    monkeypatch.setattr(device.Path, "read_text", lambda self: "150000 100000\n")
    assert device.available_cores() == 2
    monkeypatch.setattr(device.Path, "read_text", lambda self: "max 100000\n")
    assert device.available_cores() == 32
