"""Measure this toolkit against sentence-transformers on this machine, in ten minutes and one table.

    .venv/bin/python -m benchmarks.all --input-dir build/demo/python_docs
    .venv/bin/python -m benchmarks.all --input-dir build/demo/python_docs --instruction-set avx2

Encoding (documents a second), one query (milliseconds, median) and a training step (seconds, batch 32): ours as it
comes and the best of the peer's settings, in alternating rounds of the same run. --instruction-set holds both to what
an older processor has: ours by SPLADE_ISA, torch by its own variables.
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
from utils.processor import FORCE, INSTRUCTION_SETS

AUTO = ["--precisions", "auto"]
# Module, model, further arguments, column of its table, whether more is better.
TASKS = [
    ("encode", "splade-tiny", ["--documents", "64", "--rounds", "2", *AUTO], "documents/s", True),
    ("encode", "bert-base", ["--documents", "16", "--rounds", "1", *AUTO], "documents/s", True),
    ("encode", "xlm-r-vocabulary", ["--documents", "16", "--rounds", "1", *AUTO], "documents/s", True),
    ("query", "splade-tiny", ["--documents", "50"], "p50 ms", False),
    ("query", "bert-base", ["--documents", "10", "--rounds", "2"], "p50 ms", False),
    ("train", "splade-tiny", ["--rounds", "2"], "s/step", False),
]
TORCH_LIMITS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def main(args: argparse.Namespace) -> None:
    environment = dict(os.environ)
    if args.instruction_set:
        environment[FORCE] = args.instruction_set
        if not args.instruction_set.startswith("avx512"):
            environment |= TORCH_LIMITS
    rows: list[dict[str, Any]] = []
    setting: dict[str, Any] = {}
    for module, model, options, column, more_is_better in progress_bar(TASKS, desc="measuring", unit="tasks"):
        command = [sys.executable, "-m", f"benchmarks.{module}", "--input-dir", args.input_dir]
        command += ["--model-name", model, *options]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command[1:])} ended with exit code {done.returncode}")
        setting = json.loads(done.stdout.splitlines()[-1])
        figures = {row[""]: row[column] for row in setting["rows"]}
        ours = next(value for name, value in figures.items() if name in ("ours", "ours, auto"))
        peers = {name: value for name, value in figures.items() if name.startswith(PEER)}
        best = (max if more_is_better else min)(peers, key=peers.get)
        rows.append(
            {
                "": f"{module}: {model}",
                "unit": column,
                "ours": ours,
                "peer's best": peers[best],
                "its setting": best.removeprefix(f"{PEER}, "),
                "times": ours / peers[best] if more_is_better else peers[best] / ours,
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
