"""What models cost and what they are worth, each measured in a process of its own."""

import contextlib
import multiprocessing
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from matplotlib.figure import Figure

from utils.console import quiet_libraries
from utils.evaluation.collection import Collection
from utils.evaluation.significance import Difference, paired_difference
from utils.evaluation.systems import evaluate_model
from utils.models import resolve_model
from utils.splade.opening import open_encoder

METRIC = "nDCG@10"
SAMPLE = 512  # documents that are encoded to take the time, at most
ROUNDS = 3
QUERIES = 200  # that are encoded one at a time to take the time, at most
RECORDS = ("README.md", "training_history.json", "training_curves.png", "optimization.json", "optimization.png")


class Measurement(NamedTuple):
    """What a model costs, and what it finds.

    Attributes:
        disk_bytes: of its folder's files that encoding takes.
        memory_bytes: of a process that has encoded with it, above one that has only loaded the libraries.
        documents_per_second, query_ms: the medians, of encoding.
        terms: mean active terms of the documents.
        values: [queries] nDCG@10; None without judged queries.
    """

    name: str
    disk_bytes: int
    memory_bytes: int
    documents_per_second: float
    query_ms: float
    terms: float
    values: np.ndarray | None


def measure(
    name: str,
    folder: str | Path,
    precision: str,
    texts: Sequence[str],
    data: Collection | None,
    threads: int | None,
) -> Measurement:
    """Measure the model in a folder, called `name`, in a process of its own.

    Args:
        texts: documents to take the time with; as queries, the collection's serve, or the beginnings of these.
        data: the judged queries and their documents, if there are any.

    Raises:
        OSError: the process was killed.
        Exception: whatever measuring raised there.
    """
    context = multiprocessing.get_context("spawn")  # a forked one would have this one's memory
    connection, others_end = context.Pipe()
    process = context.Process(target=_answer, args=(others_end,), daemon=True)
    with _without_interrupts():
        process.start()
    others_end.close()
    try:
        connection.send((name, str(folder), precision, texts, data, threads))
        result = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise OSError(f"measuring '{name}' ended with exit code {process.exitcode}: is memory short?") from None
    except KeyboardInterrupt:
        process.kill()
        raise
    process.join()
    if isinstance(result, Exception):
        raise result
    return result


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Begin processes that Ctrl-C does not reach, as each would print a traceback: their parent ends them."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what signals do
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _answer(connection: Connection) -> None:
    """Receive the arguments of `_measure`, and send what it returns or raises."""
    try:
        result = _measure(*connection.recv())
    except Exception as error:
        result = error
    connection.send(result)


def _measure(
    name: str, folder: str, precision: str, texts: Sequence[str], data: Collection | None, threads: int | None
) -> Measurement:
    quiet_libraries()
    libraries = _resident_bytes()
    encoder = open_encoder(folder, "cpu", precision=precision, threads=threads)
    vectors = encoder.encode(texts)
    memory = _resident_bytes() - libraries
    seconds = []
    for _ in range(ROUNDS):
        encoder.forget_words()
        seconds.append(_seconds(lambda: encoder.encode(texts)))
    queries = list(data.queries.values()) if data else [" ".join(text.split()[:8]) for text in texts]
    for query in queries[:3]:
        encoder.encode_query(query)  # what is done once is not a query's
    latencies = [_seconds(lambda query=query: encoder.encode_query(query)) for query in queries[:QUERIES]]
    values = evaluate_model(name, encoder, data, [METRIC]).values[METRIC] if data else None
    return Measurement(
        name,
        sum(file.stat().st_size for file in _model_files(folder)),
        memory,
        len(texts) / statistics.median(seconds),
        statistics.median(latencies) * 1000,
        float(np.mean([len(vector.indices) for vector in vectors])),
        values,
    )


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def _model_files(folder: str) -> Iterator[Path]:
    """Yield the files of a model's folder, without what tells of how it was made."""
    for file in Path(resolve_model(folder)).rglob("*"):
        if file.is_file() and file.name not in RECORDS and not (file.name.startswith(".") or "runs" in file.parts):
            yield file


def quality_differences(measured: Sequence[Measurement]) -> list[Difference | None]:
    """Return how far each is above the first in nDCG@10; None where that is not known, and for the first."""
    first = measured[0].values
    return [None, *(None if first is None else paired_difference(found.values, first) for found in measured[1:])]


def comparison_rows(measured: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return a row of a table for each; the first is what the others are compared with."""
    rows = []
    for found, difference in zip(measured, quality_differences(measured)):
        row = {
            "model": found.name,
            "disk_MB": found.disk_bytes / 1e6,
            "memory_MB": found.memory_bytes / 1e6,
            "documents/s": found.documents_per_second,
            "times": found.documents_per_second / measured[0].documents_per_second,
            "query_ms": found.query_ms,
            "terms": found.terms,
        }
        if found.values is not None:
            row[METRIC] = float(found.values.mean())
            row["difference"] = str(difference or "")
        rows.append(row)
    return rows


def draw_measurements(measured: Sequence[Measurement]) -> Figure:
    """Draw quality, with the interval of its difference from the first, against documents a second; the area of a mark
    is the size on disk."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    largest = max(found.disk_bytes for found in measured)
    for place, (found, difference) in enumerate(zip(measured, quality_differences(measured))):
        quality, color = float(found.values.mean()), f"C{place % 10}"
        if difference:
            spread = [[difference.mean - difference.low], [difference.high - difference.mean]]
            axis.errorbar(found.documents_per_second, quality, yerr=spread, color=color, linewidth=1, capsize=3)
        size = 400 * found.disk_bytes / largest
        label = f"{found.name}, {found.disk_bytes / 1e6:.1f} MB"
        axis.scatter(found.documents_per_second, quality, size, color=color, alpha=0.7, label=label)
    axis.axhline(float(measured[0].values.mean()), color="gray", linewidth=0.8, linestyle=":")
    axis.set_xscale("log")
    for formatter in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        formatter("{x:,.0f}")
    axis.set(xlabel="documents a second (log scale)", ylabel=METRIC)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    legend = figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([30])
    return figure
