"""Products of 8-bit codes on a processor with AVX-512 VNNI: the Python face of vnni_head.cpp and
vnni_layers.cpp."""

import ctypes
from typing import NamedTuple

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from utils.splade.native import load_library

PANEL_ROWS = 64  # rows of weights side by side; as in vnni.h


class Packed(NamedTuple):
    """A matrix of weights in 8-bit codes, in the order that the kernels read it, and for each of its rows the size of a
    step, the norm of what rounding lost, and its own norm."""

    codes: torch.Tensor
    scale: torch.Tensor
    error: torch.Tensor
    norm: torch.Tensor


_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def available() -> bool:
    """Whether this machine has the processor and the compiler that they need."""
    return load_library("vnni") is not None


def pack(weight: torch.Tensor) -> Packed:
    """Codes of float32 weights [rows, size], kept until the weights change, as in training they do at every step. Torch
    counts changes; one made through `weight.data` it does not see, and neither does this."""
    version = None if weight.is_inference() else (weight.data_ptr(), weight._version)
    kept = _packed.get(weight)
    if kept and version and kept[0] == version:
        return kept[1]
    rows, size = weight.shape
    codes = torch.empty(-(-rows // PANEL_ROWS) * PANEL_ROWS * -(-size // 4) * 4, dtype=torch.uint8)
    packed = Packed(codes, *(torch.empty(rows) for _ in range(3)))
    call("pack", weight, rows, size, *packed)
    _packed[weight] = (version, packed)
    return packed


def linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """states @ weight.T + bias, both rounded to 8 bits and summed exactly: [..., size] -> [..., rows], float32."""
    flat = states.flatten(0, -2).float().contiguous()
    out = torch.empty(len(flat), len(weight))
    packed = pack(weight)
    call("linear", flat, *flat.shape, packed.codes, packed.scale, bias, len(weight), out)
    return out.view(*states.shape[:-1], len(weight))


def call(name: str, *arguments: torch.Tensor | int | None) -> int | None:
    """Call the library's function with tensors as pointers, the number of threads behind them; what it returns is a
    pointer."""
    values = [
        ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(None if a is None else a.data_ptr())
        for a in arguments
    ]
    function = getattr(load_library("vnni"), name)
    function.restype = ctypes.c_void_p
    return function(*values, ctypes.c_int(torch.get_num_threads()))
