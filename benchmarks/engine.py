"""Measure the engine of an index alone, without texts: how many vectors it takes in, and how fast it searches them.

    .venv/bin/python -m benchmarks.engine --input-dir COLLECTION --passages 1000000

The vectors are those of real passages, mixed as in benchmarks.index, the words' too. Queries are those of the
collection, if it has some (queries.jsonl), else the first eight words of documents; encoding is not part of it. Rates
and milliseconds are given by the clock and, for a machine with other work, as the processor's time, which is the sum
over the engine's threads.
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import model_folder, parser, report, resident, sample
from benchmarks.index import ADDED, Mixer
from utils.arguments import positive_int
from utils.console import progress_bar, run_script
from utils.languages import detect_language
from utils.search.index import SPLADE, WORDS, IndexPoint, VectorIndex, field_key
from utils.search.lexical import TermCounter, bm25_weights
from utils.search.mirror import MERGED_PASSAGES, SETTLED_PASSAGES
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector

SEARCHES = ((SPLADE, 10), (SPLADE, 100), (WORDS, 10), (WORDS, 100))  # kinds, and numbers of hits


def main(args: argparse.Namespace) -> None:
    texts = sample(args)
    queries = read_queries(Path(args.input_dir)) or [" ".join(text.split()[:8]) for text in texts]
    queries = random.Random(0).sample(queries, min(args.queries, len(queries)))
    with model_folder(args.model_name, texts) as folder:
        encoder = SpladeEncoder.from_pretrained(folder, args.device)
        vectors = encoder.encode(texts, show_progress=True)
        asked = {SPLADE: [encoder.encode_query(query) for query in queries]}
    counter = TermCounter(detect_language(texts))
    counts = [counter.count(text) for text in texts]
    mean = float(np.mean([count.values.sum() for count in counts]))
    asked[WORDS] = [counter.count(query) for query in queries]
    mixers = {
        SPLADE: Mixer(vectors, encoder.vocabulary_size),
        WORDS: Mixer([bm25_weights(count, mean) for count in counts], 2**31),
    }
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "engine")
        before, index = resident("VmRSS"), VectorIndex(place)
        numbers = progress_bar(range(args.passages), desc="indexing", unit="passages")
        clock, cpu = fill(index, mixers, numbers)
        figures = {"built, passages/s": args.passages / clock, "by processor time": args.passages / cpu}
        figures["peak memory, MB"] = (resident("VmHWM") - before) / 1e6
        figures["disk, MB"] = sum(file.stat().st_blocks * 512 for file in place.rglob("*") if file.is_file()) / 1e6
        figures[f"{ADDED:,} more, s"], _ = fill(index, mixers, range(args.passages, args.passages + ADDED))
        index.close()
        started = time.perf_counter()
        index = VectorIndex(place)
        figures["open, s"] = time.perf_counter() - started
        rows = [measured(index, kind, top_k, asked[kind]) for kind, top_k in SEARCHES]
        index.close()
    terms = {"query terms": np.mean([len(query.indices) for query in asked[SPLADE]])}
    setting = {"passages": args.passages, "queries": len(queries)}
    report(args, setting | {name: round(float(value), 2) for name, value in (terms | figures).items()}, rows)


def read_queries(folder: Path) -> list[str]:
    """Return the queries of a collection in the BEIR layout, none where it has none."""
    file = folder / "queries.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()
    return [json.loads(line)["text"] for line in lines]


def fill(index: VectorIndex, mixers: dict[str, Mixer], numbers: Iterable[int]) -> tuple[float, float]:
    """Add the vectors of these numbers as EngineMirror does; return the seconds that the engine took, by the clock and
    of the processor."""
    seconds, stream = np.zeros(2), iter(numbers)
    for batch in itertools.count(1):
        points = list(itertools.islice(points_of(mixers, stream), SETTLED_PASSAGES))
        started = np.array([time.perf_counter(), time.process_time()])
        index.upsert(points)
        if batch * SETTLED_PASSAGES % MERGED_PASSAGES == 0:
            index.merge()
        index.flush() if points else index.settle("done")
        seconds += np.array([time.perf_counter(), time.process_time()]) - started
        if not points:
            return tuple(seconds)


def points_of(mixers: dict[str, Mixer], numbers: Iterator[int]) -> Iterator[IndexPoint]:
    key = field_key("1", "text")
    for number in numbers:
        vectors = {kind: mixer.vector(number) for kind, mixer in mixers.items()}
        yield IndexPoint(number, vectors, {key: [f"document {number}"]})


def measured(index: VectorIndex, kind: str, top_k: int, queries: Sequence[SparseVector]) -> dict[str, object]:
    """Return a row: milliseconds per query, after a first round that is not timed."""
    clock, cpu = [], []
    for times in ([], []):
        for query in queries:
            started = time.perf_counter(), time.process_time()
            index.search(kind, query, top_k)
            times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        clock, cpu = zip(*times)
    row: dict[str, object] = {"": f"{kind}, {top_k} hits"}
    for name, seconds in (("", clock), ("processor's ", cpu)):
        row |= {f"{name}p{p} ms": 1000 * float(np.percentile(seconds, p)) for p in (50, 95, 99)}
    return row


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=1, documents=2000)
    arguments.add_argument("--passages", type=positive_int, default=100_000, help="passages in the index")
    arguments.add_argument("--queries", type=positive_int, default=300, help="queries")
    run_script(main, arguments.parse_args())
