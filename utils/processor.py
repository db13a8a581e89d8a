"""Instruction sets of the processor that the C++ of utils/splade/cpp is compiled for."""

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

FORCE = "SPLADE_ISA"  # environment variable: an instruction set to use, though the processor may have better ones


class InstructionSet(NamedTuple):
    machine: str  # as platform.machine() has it
    needs: frozenset[str]  # names in /proc/cpuinfo
    flags: str  # of the compiler, GCC or Clang


_AVX2 = frozenset(["avx2", "fma"])
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
_AVX512_FLAGS = "-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl"

# The best first.
INSTRUCTION_SETS = {
    "avx512_bf16": InstructionSet(
        "x86_64", _AVX512 | {"avx512_vnni", "avx512_bf16"}, f"{_AVX512_FLAGS} -mavx512vnni -mavx512bf16"
    ),
    "avx512_vnni": InstructionSet("x86_64", _AVX512 | {"avx512_vnni"}, f"{_AVX512_FLAGS} -mavx512vnni"),
    "avx_vnni": InstructionSet("x86_64", _AVX2 | {"avx_vnni"}, "-mavx2 -mfma -mavxvnni"),
    "avx512": InstructionSet("x86_64", _AVX512, _AVX512_FLAGS),
    "avx2": InstructionSet("x86_64", _AVX2, "-mavx2 -mfma"),
    "neon_i8mm": InstructionSet("aarch64", frozenset(["asimddp", "i8mm"]), "-march=armv8.2-a+dotprod+i8mm"),
    "neon": InstructionSet("aarch64", frozenset(["asimddp"]), "-march=armv8.2-a+dotprod"),
}


def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that this processor has and that SPLADE_ISA does not rule out, the best first; none
    for SPLADE_ISA=torch, which leaves all to torch's own operations.

    Raises:
        ValueError: SPLADE_ISA names what is no instruction set, or one that this processor does not have.
    """
    return _usable(os.environ.get(FORCE) or "")


@functools.cache
def _usable(forced: str) -> tuple[str, ...]:
    machine, features = _machine(), _features()
    known = INSTRUCTION_SETS.items()
    here = tuple(name for name, (own, needs, _) in known if own == machine and needs <= features)
    if not forced:
        return here
    if forced == "torch":
        return ()
    if forced not in here:
        raise ValueError(f"{FORCE}={forced}: use one that this processor has: {', '.join([*here, 'torch'])}")
    return here[here.index(forced) :]


def _machine() -> str:
    return {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())


def _features() -> frozenset[str]:
    """Return what the processor can do, by its names in Linux's /proc/cpuinfo."""
    if platform.system() == "Darwin":
        return _features_of_apple() if _machine() == "aarch64" else frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    listed = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(listed.partition(":")[2].split())


def _features_of_apple() -> frozenset[str]:
    """Return what a processor of Apple can do, by Linux's names: all have dot products."""
    command = ["sysctl", "-n", "hw.optional.arm.FEAT_I8MM"]
    try:
        has_products = subprocess.run(command, capture_output=True, text=True).stdout.strip() == "1"
    except OSError:
        has_products = False
    return frozenset(["asimddp", "i8mm"] if has_products else ["asimddp"])
