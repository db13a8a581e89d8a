"""Int8 matrix products on a processor with AVX-512 VNNI: ctypes bindings of vnni_head.cpp and vnni_layers.cpp."""

import ctypes
from typing import NamedTuple

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from utils.splade.native import load_library

PANEL_ROWS = 64  # rows of weights that the kernels read side by side; must equal PANEL in vnni.h


class PackedWeights(NamedTuple):
    """A float32 weight matrix [rows, size] quantized to 8 bits, in the order in which the kernels read it."""

    codes: torch.Tensor  # uint8, rows padded to PANEL_ROWS, size to 4
    scale: torch.Tensor  # [rows] size of a quantization step
    error: torch.Tensor  # [rows] norm of the rounding error
    norm: torch.Tensor  # [rows] norm before rounding


_packed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def available() -> bool:
    """Return whether this machine has the processor and the compiler that the kernels need."""
    return torch.cpu._is_vnni_supported() and load_library("vnni") is not None


def pack(weight: torch.Tensor) -> PackedWeights:
    """Quantize weights [rows, size]; the result is cached until the weights change.

    A change is detected by torch's version counter, which does not count in-place changes through `weight.data`; any
    optimizer's step counts as one too. Inference tensors have no counter and are quantized at each call.
    """
    version = None if weight.is_inference() else (weight.data_ptr(), weight._version)
    cached = _packed.get(weight)
    if cached and version and cached[0] == version:
        return cached[1]
    rows, size = weight.shape
    codes = torch.empty(-(-rows // PANEL_ROWS) * PANEL_ROWS * -(-size // 4) * 4, dtype=torch.uint8)
    packed = PackedWeights(codes, *(torch.empty(rows) for _ in range(3)))
    call("pack", weight.float().contiguous(), rows, size, *packed)
    _packed[weight] = (version, packed)
    return packed


def _forget_stepped(optimizer: Optimizer, *_: object) -> None:
    """Drop the packed weights that a step has changed: fused optimizers do not raise the version counter."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            _packed.pop(weight, None)


register_optimizer_step_post_hook(_forget_stepped)


def linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute states @ weight.T + bias, both factors rounded to 8 bits and summed exactly.

    Args:
        states: [..., size].
        weight: [outputs, size].
        bias: [outputs] or None.

    Returns:
        [..., outputs], float32.
    """
    flat = states.flatten(0, -2).float().contiguous()
    outputs = len(weight)
    out = torch.empty(len(flat), outputs)
    packed = pack(weight)
    call("linear", flat, *flat.shape, packed.codes, packed.scale, bias, outputs, out)
    return out.view(*states.shape[:-1], outputs)


def call(name: str, *arguments: torch.Tensor | int | None) -> int | None:
    """Call a function of the library: tensors become pointers, and torch's number of threads comes as last argument.

    Returns:
        The result as a pointer, which has a meaning for `find` alone.
    """
    values = [
        ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(None if a is None else a.data_ptr())
        for a in arguments
    ]
    function = getattr(load_library("vnni"), name)
    function.restype = ctypes.c_void_p
    return function(*values, ctypes.c_int(torch.get_num_threads()))
