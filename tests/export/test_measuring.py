"""Tests of the process that measures a model."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from utils.export.measuring import measure

ROOT = Path(__file__).parents[2]


def send(number: int) -> None:
    """Send a signal to the process that measures, once there is one."""
    while True:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    os.kill(child.pid, number)
                    return
        time.sleep(0.05)


def measured_with(number: int):
    threading.Thread(target=send, args=(number,), daemon=True).start()
    return measure("tiny", "splade-tiny", "auto", ["how do wings make lift"] * 3, None, None)


def test_a_process_that_is_killed_is_told():
    with pytest.raises(OSError, match="measuring 'tiny' ended with exit code -9"):
        measured_with(signal.SIGKILL)


def test_an_interrupt_of_all_processes_leaves_the_one_that_measures_to_the_one_that_began_it():
    assert measured_with(signal.SIGINT).terms > 10


def test_an_interrupt_ends_both_and_only_the_one_that_began_says_where():
    code = """from utils.export.measuring import measure
print("begun", flush=True)
measure("tiny", "splade-tiny", "auto", ["how do wings make lift"] * 3, None, None)"""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True, **streams)
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)  # while the other one imports
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate()[1]  # which both have open
    assert process.returncode == -signal.SIGINT and stderr.count("Traceback") == 1


def test_what_fails_there_fails_here(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        measure("none", tmp_path / "none", "auto", [], None, None)
