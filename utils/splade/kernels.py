"""Products of tokens and packed weights in C++, by the best instructions of this processor: ctypes bindings of cpp/."""

import argparse
import ctypes
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from utils.arguments import ScriptParser
from utils.console import print_line, run_script
from utils.processor import INSTRUCTION_SETS, instruction_sets
from utils.splade.native import CompileError, load_library

PRODUCTS_PER_THREAD = 1 << 27  # products of codes for which another thread is woken: .1 ms (VNNI) to .4 ms (AVX2)
COSTS = {"float32": 8, "bfloat16": 4, "int8": 1}  # products of codes that take as long as one, by precision
SOURCES = Path(__file__).parent / "cpp"
_LOADING, _KEEPING = threading.RLock(), threading.RLock()  # garbage collection may come here from within


class PackedWeights(NamedTuple):
    """A float32 weight matrix [rows, size] quantized to 8 bits, in the order in which the kernels read it."""

    codes: torch.Tensor  # uint8, rows padded to panels, size to a unit of dimensions
    scale: torch.Tensor  # [rows] size of a quantization step
    error: torch.Tensor  # [rows] norm of the rounding error
    norm: torch.Tensor  # [rows] norm before rounding


class PackedFloats(NamedTuple):
    """A weight matrix [rows, size] in float32 or bfloat16, in the order in which the kernels read it."""

    values: torch.Tensor  # rows padded to panels, size in bfloat16 to pairs
    scale: None = None


_Made = TypeVar("_Made")
# By weight, then by kind: [versions of all weights that it was made of, references to them, what was made].
_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_forgotten = 0  # how many times something was


def available() -> bool:
    """Return whether this machine has the processor and the compiler that the kernels need.

    Raises:
        ValueError: see `utils.processor.instruction_sets`.
    """
    return library() is not None


def instruction_set() -> str | None:
    """Return the name of the instruction set that is used, None where the kernels are not available."""
    return (loaded := library()) and loaded.instruction_set


def has_bfloat16() -> bool:
    """Return whether the kernels multiply in bfloat16, and nothing here is faster: torch uses AMX."""
    return available() and bool(library().has_bfloat16()) and not torch.cpu._is_amx_tile_supported()


def library() -> ctypes.CDLL | None:
    """Return the library for the best instruction set that it compiles for, compiled at its first use; None, after a
    line that says why, where there is none."""
    with _LOADING:
        return _load(instruction_sets())


@functools.cache
def _load(names: tuple[str, ...], beside: bool = False) -> ctypes.CDLL | None:
    for name in names:
        try:
            loaded = load_library(SOURCES, name, INSTRUCTION_SETS[name].flags, beside)
        except (OSError, NotImplementedError) as error:  # filelock raises the second where a file system has no locks
            if isinstance(error, CompileError) and name != names[-1]:
                print_line(f"not compiled for {name}, so older instructions are tried: {error}")
                continue
            print_line(f"no C++, so torch's own operations are used, which are slower: {error}")
            return None
        loaded.instruction_set = name
        return loaded
    return None


def pack(weight: torch.Tensor) -> PackedWeights:
    """Quantize weights [rows, size]; the result is kept until they change, see `keep`."""
    return keep([weight], "codes", lambda: _pack_codes(weight.float().contiguous()))


def pack_floats(weight: torch.Tensor) -> PackedFloats:
    """Pack weights [rows, size] in float32; the result is kept until they change, see `keep`."""
    return keep([weight], "floats", lambda: _pack_floats(weight.float().contiguous()))


def pack_bfloats(weight: torch.Tensor) -> PackedFloats:
    """Round weights [rows, size] to bfloat16; the result is kept until they change, see `keep`."""
    return keep([weight], "bfloats", lambda: _pack_bfloats(weight.float().contiguous()))


PACKERS = {"float32": pack_floats, "bfloat16": pack_bfloats, "int8": pack}


def keep(weights: Sequence[torch.Tensor], kind: str, make: Callable[[], _Made]) -> _Made:
    """Return what `make` does of these weights for the instruction set in use; kept until one of them changes or
    is gone, so it must not refer to them.

    A change is detected by torch's version counter, which does not count in-place changes through `weight.data`; any
    optimizer's step counts as one too. Inference tensors have no counter, and nothing is kept of them.
    """
    if any(weight.is_inference() for weight in weights):
        return make()
    versions = [instruction_set(), *((weight.data_ptr(), weight._version) for weight in weights)]
    if found := _find(weights, kind, versions):
        return found[0]
    before = _forgotten
    made = make()
    with _KEEPING:
        if found := _find(weights, kind, versions):  # of threads that make the same at once, all get what is kept first
            return found[0]
        if before == _forgotten:  # else another thread may have changed the weights since
            kept = [versions, [weakref.ref(weight) for weight in weights], made]
            for weight in weights:
                _kept.setdefault(weight, {})[kind] = kept
    return made


def _find(weights: Sequence[torch.Tensor], kind: str, versions: list) -> tuple[_Made] | None:
    """Return what is kept of these versions of weights, as the one item of a tuple; None if nothing is."""
    # Read at once, because another thread may forget it; a new weight may stand where one that is gone stood.
    known, owners, made = _kept.get(weights[0], {}).get(kind) or (None, None, None)
    fits = known == versions and all(owner() is weight for owner, weight in zip(owners, weights))
    return (made,) if fits else None


def _pack_codes(weight: torch.Tensor) -> PackedWeights:
    rows, size = weight.shape
    unit = library().code_unit()
    codes = torch.empty(_padded_rows(rows) * -(-size // unit) * unit, dtype=torch.uint8)
    packed = PackedWeights(codes, *(torch.empty(rows) for _ in range(3)))
    call("pack_codes", weight, rows, size, *packed)
    return packed


def unpack_codes(packed: PackedWeights, shape: Sequence[int]) -> torch.Tensor:
    """Return the codes of weights of this shape as they are packed, but in rows: [rows, size padded to a unit]."""
    group, panel = library().code_group(), library().panel_rows()
    panels = packed.codes.view(_padded_rows(shape[0]) // panel, -1, panel, group)
    return panels.transpose(1, 2).flatten(0, 1).flatten(1)[: shape[0]].contiguous()


def _pack_floats(weight: torch.Tensor) -> PackedFloats:
    rows, size = weight.shape
    packed = PackedFloats(torch.empty(_padded_rows(rows) * size))
    call("pack_floats", weight, rows, size, packed.values)
    return packed


def _pack_bfloats(weight: torch.Tensor) -> PackedFloats:
    rows, size = weight.shape
    packed = PackedFloats(torch.empty(_padded_rows(rows) * -(-size // 2) * 2, dtype=torch.bfloat16))
    call("pack_bfloats", weight, rows, size, packed.values)
    return packed


def _padded_rows(rows: int) -> int:
    panel = library().panel_rows()
    return -(-rows // panel) * panel


def forget(weights: Iterable[torch.Tensor]) -> None:
    """Drop what is kept of these weights."""
    global _forgotten
    with _KEEPING:
        _forgotten += 1
        for weight in weights:
            for kept in _kept.pop(weight, {}).values():
                kept[:] = None, None, None  # other weights may have it too


def _forget_stepped(optimizer: Optimizer, *_: object) -> None:
    """Drop what is kept of weights that a step has changed: fused optimizers do not raise the version counter."""
    for group in optimizer.param_groups:
        forget(group["params"])


register_optimizer_step_post_hook(_forget_stepped)


def linear(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, precision: str = "float32"
) -> torch.Tensor:
    """Compute states @ weight.T + bias.

    Args:
        states: [..., size].
        weight: [outputs, size].
        bias: [outputs] or None.
        precision: a name in COSTS, to which both factors are rounded; sums are in float32, of codes exact.

    Returns:
        [..., outputs], of the states' dtype.
    """
    flat = states.flatten(0, -2).float().contiguous()
    bias = None if bias is None else bias.float().contiguous()
    outputs = len(weight)
    out = torch.empty(len(flat), outputs)
    packed, scale = PACKERS[precision](weight)[:2]
    arguments = flat, *flat.shape, packed, scale, bias, outputs, out, precision_number(precision)
    call("linear", *arguments, products=flat.numel() * outputs * COSTS[precision])
    return out.view(*states.shape[:-1], outputs).to(states.dtype)


def precision_number(precision: str) -> int:
    """Return the number by which cpp/layers.cpp knows a precision."""
    return list(COSTS).index(precision)


def call(name: str, *arguments: torch.Tensor | list | int | None, products: int | None = None) -> int | None:
    """Call a function of the library: tensors become pointers, lists of tensors arrays of pointers, and the number of
    threads comes as last argument: torch's, or fewer where there are so few `products` of codes that waking threads
    takes longer.

    Returns:
        The result as a pointer, which has a meaning for `find` alone.
    """
    values = []
    for argument in arguments:
        if isinstance(argument, int):
            values.append(ctypes.c_int64(argument))
        elif isinstance(argument, list):
            values.append((ctypes.c_void_p * len(argument))(*map(_address, argument)))
        else:
            values.append(ctypes.c_void_p(_address(argument)))
    threads = torch.get_num_threads()
    if products is not None:
        threads = min(threads, 1 + products // PRODUCTS_PER_THREAD)
    function = getattr(library(), name)
    function.restype = ctypes.c_void_p
    return function(*values, ctypes.c_int(threads))


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def main(args: argparse.Namespace) -> None:
    names = instruction_sets()
    if loaded := _load(names, beside=True):
        print_line(f"kernels in C++ by {loaded.instruction_set}")
    elif not names:  # by this processor, or SPLADE_ISA=torch
        print_line("no kernels in C++ for what is in use here, so torch's own operations are used, which are slower")


if __name__ == "__main__":
    run_script(
        main, ScriptParser("Compile the kernels beside their sources, and say by which instructions.").parse_args()
    )
