"""The kernels for an instruction set of another processor, which an emulator runs."""

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch

from utils.processor import INSTRUCTION_SETS
from utils.splade import kernels, native

# A compiler, and a command that runs what it makes.
QEMU = ["qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"]
TOOLS = dict.fromkeys(["neon_i8mm", "neon"], ("aarch64-linux-gnu-g++", QEMU))
NUMBER, MEMORY, LIST = range(3)  # kinds of arguments, as in kernel_driver.cpp


def can_emulate(instruction_set: str) -> bool:
    compiler, (emulator, *_) = TOOLS.get(instruction_set, ("", [""]))
    return bool(shutil.which(compiler) and shutil.which(emulator))


class EmulatedLibrary:
    """Stands in for `kernels.library()` and, by its `call`, for `kernels.call`."""

    def __init__(self, instruction_set: str, cache: Path, folder: Path):
        """Compile the kernels into `cache`, unless they are there, and what calls them into `folder`, and start it."""
        self.instruction_set = instruction_set
        compiler, command = TOOLS[instruction_set]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(cache))
            patch.setenv("CXX", compiler)
            library = native.build_library(kernels.SOURCES, instruction_set, INSTRUCTION_SETS[instruction_set].flags)
        source, driver = Path(__file__).with_name("kernel_driver.cpp"), folder / "driver"
        subprocess.run([compiler, "-std=c++17", "-o", driver, source], check=True)
        self._process = subprocess.Popen([*command, driver, library], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def panel_rows(self) -> int:
        return self.call("panel_rows")

    def code_unit(self) -> int:
        return self.call("code_unit")

    def code_group(self) -> int:
        return self.call("code_group")

    def has_bfloat16(self) -> int:
        return self.call("has_bfloat16")

    def call(self, name: str, *arguments: torch.Tensor | list | int | None, products: int | None = None) -> int:
        """See `kernels.call`."""
        name = torch.tensor([*name.encode(), 0], dtype=torch.uint8)
        tensors = []
        message = _encode([name, *arguments, torch.get_num_threads()], tensors)
        self._process.stdin.write(message)
        self._process.stdin.flush()
        (result,) = struct.unpack("q", self._read(8))
        for tensor in tensors:
            ctypes.memmove(tensor.data_ptr(), self._read(tensor.nbytes), tensor.nbytes)
        return result

    def _read(self, size: int) -> bytes:
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise RuntimeError(f"the emulated process ended with {self._process.wait()}")
        return data


def _encode(argument, tensors: list[torch.Tensor]) -> bytes:
    """Return an argument as the driver reads it, and add the tensors in it to `tensors`."""
    if isinstance(argument, list):
        return struct.pack("qq", LIST, len(argument)) + b"".join(_encode(item, tensors) for item in argument)
    if isinstance(argument, torch.Tensor):
        tensors.append(argument)
        return struct.pack("qq", MEMORY, argument.nbytes) + ctypes.string_at(argument.data_ptr(), argument.nbytes)
    return struct.pack("qq", NUMBER, argument or 0)
