"""Measure this toolkit against sentence-transformers on this machine, in ten minutes and one table.

    .venv/bin/python -m benchmarks.all --input-dir build/demo/python_docs
    .venv/bin/python -m benchmarks.all --input-dir build/demo/python_docs --instruction-set avx2

Encoding (documents a second), one query (milliseconds, median) and a training step (seconds, batch 32): ours as it
comes, for encoding on the CPU also in 8 bits, and the best of the peer's settings, in alternating rounds of the same
run. --instruction-set holds both to what an older processor has: ours by SPLADE_ISA, torch by its own variables.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.common import PEER
from utils.arguments import ScriptParser
from utils.console import format_table, print_line, progress_bar, run_script
from utils.device import resolve_device
from utils.processor import FORCE, INSTRUCTION_SETS
from utils.splade import kernels

# Module, model, further arguments, column of its table, whether more is better.
TASKS = [
    ("encode", "splade-tiny", ["--documents", "128", "--rounds", "2"], "documents/s", True),
    ("encode", "bert-base", ["--documents", "16", "--rounds", "1"], "documents/s", True),
    ("encode", "xlm-r-vocabulary", ["--documents", "16", "--rounds", "1", "--peer-batches", "2"], "documents/s", True),
    ("query", "splade-tiny", ["--documents", "50"], "p50 ms", False),
    ("query", "bert-base", ["--documents", "10", "--rounds", "2"], "p50 ms", False),
    ("train", "splade-tiny", ["--rounds", "2"], "s/step", False),
]
TORCH_LIMITS = {
    "avx512_vnni": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "avx_vnni": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2_VNNI", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


def main(args: argparse.Namespace) -> None:
    environment = dict(os.environ)
    if args.instruction_set:
        environment |= {FORCE: args.instruction_set} | TORCH_LIMITS.get(args.instruction_set, {})
    in_int8 = ["int8"] if resolve_device().type == "cpu" and kernels.available() else []
    rows: list[dict[str, Any]] = []
    setting: dict[str, Any] = {}
    for module, model, options, column, more_is_better in progress_bar(TASKS, desc="measuring", unit="tasks"):
        command = [sys.executable, "-m", f"benchmarks.{module}", "--input-dir", args.input_dir]
        command += ["--model-name", model, *options]
        if module == "encode":
            command += ["--precisions", "auto", *in_int8]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command[1:])} ended with exit code {done.returncode}")
        setting = json.loads(done.stdout.splitlines()[-1])
        figures = {row[""]: row[column] for row in setting["rows"]}
        peers = {name: value for name, value in figures.items() if name.startswith(PEER)}
        best = (max if more_is_better else min)(peers, key=peers.get)
        for name, suffix in [("ours", ""), ("ours, auto", ""), ("ours, int8", ", int8")]:
            if name not in figures:
                continue
            times = figures[name] / peers[best]
            rows.append(
                {
                    "": f"{module}: {model}{suffix}",
                    "unit": column,
                    "ours": figures[name],
                    "peer's best": peers[best],
                    "its setting": best.removeprefix(f"{PEER}, "),
                    "times": times if more_is_better else 1 / times,
                }
            )
    print_line(
        ", ".join(f"{name} {setting[name]}" for name in ("machine", "instruction set", "threads", "torch", PEER))
    )
    print_line(format_table(rows))


if __name__ == "__main__":
    arguments = ScriptParser(__doc__)
    arguments.add_argument("--input-dir", required=True, metavar="PATH", help="documents to take texts from")
    arguments.add_argument("--instruction-set", choices=INSTRUCTION_SETS, help="default: the best of this processor")
    run_script(main, arguments.parse_args())
