"""Where a model runs: device, precision, threads, processes, random state."""

import contextlib
import ctypes
import datetime
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from utils.arguments import check_positive
from utils.processor import instruction_sets

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # MPS; the CPU; the CPU on Windows
PRECISIONS = ("auto", "bfloat16", "float16", "float32", "int8")
PROCESS_WAIT = datetime.timedelta(days=30)  # at most, for the others; torchrun ends all when one fails
MAX_THREADS = 1024  # of the processor; a process with more threads than the system allows crashes


def resolve_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device called `name`, or the best one here: CUDA, else MPS, else the CPU.

    Raises:
        ValueError: the name is no device, or this machine does not have it.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device '{name}': use auto, cuda, cuda:N, mps or cpu") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device '{name}' is not available here: torch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device 'mps' is not available here: it needs Apple Silicon and a torch built for it")
    if device.type not in ("cuda", "mps", "cpu"):
        raise ValueError(f"device '{name}' is not supported: use auto, cuda, cuda:N, mps or cpu")
    return device


def bfloat16_is_fast(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices in hardware (the CPU: AVX-512 BF16 or AMX, by oneDNN)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # torch's builds for Apple have no oneDNN
        usable = instruction_sets()  # SPLADE_ISA may rule bfloat16 out
        return (
            (not usable or "avx512_bf16" in usable)
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
            and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        )
    return False


def compute_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the dtype of the network's matrix products: as named, float32 for "int8"; "auto" is bfloat16 where that is
    fast, else float32.

    Raises:
        ValueError: unknown precision, or float16 on the CPU, which has no products of it worth the rounding.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision '{precision}': use {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise ValueError("precision 'float16' is for cuda and mps; on the CPU use auto, bfloat16 or float32")
    if precision == "auto":
        return torch.bfloat16 if bfloat16_is_fast(device) else torch.float32
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)


def autocast(device: torch.device, precision: str = "auto", cache: bool = True) -> contextlib.AbstractContextManager:
    """Return a context that runs the network's matrix products in `compute_dtype`; without `cache`, for threads with
    streams of their own on CUDA, each use of a weight rounds it anew."""
    dtype = compute_dtype(device, precision)
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype, cache_enabled=cache)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether the device's memory did not suffice; on MPS and the CPU, the message alone tells that."""
    return isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in OUT_OF_MEMORY)


def release_memory() -> None:
    """Give back to the system what the C library keeps of freed memory, which it does not by itself where any of it is
    in use further on; glibc's alone."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(ctypes.c_size_t(0))


def use_threads(count: int | None = None) -> None:
    """Compute on `count` threads of the processor. None for OMP_NUM_THREADS or, where that is not set, for
    `available_cores`.

    Raises:
        ValueError: the count is not from 1 to MAX_THREADS.
    """
    check_positive(threads=count)
    if count is not None and count > MAX_THREADS:
        raise ValueError(f"`threads` must be at most {MAX_THREADS:,}, not {count}")
    if count is None and "OMP_NUM_THREADS" not in os.environ:
        count = min(torch.get_num_threads(), available_cores())
    if count is not None and count != torch.get_num_threads():
        torch.set_num_threads(count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of the processor, for work that is shorter than the waking of others."""
    count = torch.get_num_threads()
    if count == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def available_cores() -> int:
    """Return how many cores this process may use: those it is bound to, at most its container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(bound, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such control, or "max"
        return bound


def process_place() -> tuple[int, int]:
    """Return which of the processes that torchrun started this is, from 0, and how many there are."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def use_own_device(device: torch.device) -> None:
    """Give each process that torchrun started on a machine a CUDA device of its own, if it is on CUDA."""
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def sum_over_processes(*counts: int) -> list[int]:
    """Return the sums of counts over the processes that torchrun started, once all of them have come here."""
    if process_place()[1] == 1:
        return list(counts)
    torch.distributed.init_process_group("gloo", timeout=PROCESS_WAIT)
    totals = torch.tensor(counts)
    torch.distributed.all_reduce(totals)
    torch.distributed.destroy_process_group()
    return totals.tolist()


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Return the states of the generators that dropout draws from: the CPU's, and that of another `device`."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return states


def set_random_state(state: Sequence[torch.Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state[1])
