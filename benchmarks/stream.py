"""Measure resident memory while a stream of short documents is encoded: it must not grow with their number.

    .venv/bin/python -m benchmarks.stream --input-dir build/demo/python_docs --documents 200000

The documents are runs of 5 to 25 words from the collection, generated on demand; vectors are counted and dropped.
sentence-transformers has no counterpart: its encode takes a list and holds every vector.
"""

import argparse
import random
import time
from collections.abc import Iterator

from benchmarks.common import model_folder, parser, report, resident, sample
from utils.console import run_script
from utils.splade.encoder import SpladeEncoder

READING_INTERVAL = 10_000  # documents between readings of memory and rate
MIB = 2**20


def main(args: argparse.Namespace) -> None:
    count, args.documents = args.documents, 1000  # documents of the collection that words are taken from
    texts = sample(args)
    words = " ".join(texts).split()
    with model_folder(args.model_name, texts) as folder:
        encoder = SpladeEncoder.from_pretrained(folder, args.device)
    rows, terms, started = [], 0, time.perf_counter()
    for number, vector in enumerate(encoder.encode_stream(short_documents(words, count)), 1):
        terms += len(vector.indices)
        if number % READING_INTERVAL == 0 or number == count:
            rate = number / (time.perf_counter() - started)
            rows.append({"documents": number, "resident MiB": resident("VmRSS") / MIB, "documents/s": rate})
    growth = rows[-1]["resident MiB"] - rows[0]["resident MiB"]
    report(args, {"documents": count, "mean active terms": terms / count}, rows, growth_mib=growth)


def short_documents(words: list[str], count: int) -> Iterator[str]:
    """Yield `count` random runs of 5 to 25 consecutive words."""
    rng = random.Random(0)
    for _ in range(count):
        start = rng.randrange(len(words) - 25)
        yield " ".join(words[start : start + rng.randint(5, 25)])


if __name__ == "__main__":
    run_script(main, parser(__doc__, rounds=1, documents=200_000).parse_args())
