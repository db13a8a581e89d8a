"""Choosing where to run."""

from types import SimpleNamespace

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


@pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN")
def test_a_build_without_onednn_computes_in_float32(tiny, monkeypatch):
    text = "how do wings make lift"
    expected = tiny.encode([text])[0]
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    assert compute_dtype(torch.device("cpu")) == torch.float32
    monkeypatch.setattr(tiny, "precision", "auto")
    with torch.backends.mkldnn.flags(enabled=False):
        vector = tiny.encode([text])[0]
    assert vector.indices.tolist() == expected.indices.tolist()
    assert vector.values == pytest.approx(expected.values, rel=1e-4)


def test_what_an_allocator_says_when_the_memory_does_not_suffice():
    messages = ["MPS backend out of memory (MPS allocated: 8.52 GB, max allowed: 9.07 GB)."]
    messages += ["[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"]
    assert all(device.is_out_of_memory(RuntimeError(message)) for message in messages)
    assert device.is_out_of_memory(torch.OutOfMemoryError())
    assert not device.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


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


def test_more_threads_than_any_processor_has_are_refused():
    with pytest.raises(ValueError, match="`threads` must be at most 1,024, not 1025"):
        device.use_threads(1025)


def test_a_container_may_use_no_more_than_its_share(monkeypatch):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda pid: set(range(32)), raising=False)
    monkeypatch.setattr(device.Path, "read_text", lambda self: "150000 100000\n")
    assert device.available_cores() == 2
    monkeypatch.setattr(device.Path, "read_text", lambda self: "max 100000\n")
    assert device.available_cores() == 32


def test_a_part_of_a_cached_step_is_repeated_with_the_random_state_of_apples_gpu(monkeypatch):
    generator = torch.Generator()  # stands for that of MPS
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)
    mps = torch.device("mps")
    state = device.random_state(mps)
    first = torch.rand(3), torch.rand(3, generator=generator)
    device.set_random_state(state, mps)
    again = torch.rand(3), torch.rand(3, generator=generator)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
