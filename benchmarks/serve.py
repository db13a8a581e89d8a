"""Load test_queries.py --serve: clients that ask at once, for a time; latency, errors and the server's memory.

    .venv/bin/python -m benchmarks.serve --input-dir build/demo/python_docs

The server is started on a free port of this machine, whose cores it shares with the clients. Each client asks one query
after the other, the first eight words of a document, by a connection of its own. An answer that is not 200 is an error.
Memory is the server's resident set after the first tenth of the time, and at its end.
"""

import argparse
import collections
import http.client
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.common import processor
from utils.arguments import ScriptParser, positive_int
from utils.console import format_table, print_line, run_script
from utils.documents.reading import read_documents

ROOT = Path(__file__).parent.parent


def main(args: argparse.Namespace) -> None:
    documents, _ = read_documents(args.input_dir)
    queries = [" ".join(document.full_text.split()[:8]) for document in documents if document.full_text.strip()]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "test_queries.py", "--model-dir", args.model_name]
        source = ["--index-dir", args.index_dir] if args.index_dir else ["--docs-file", args.input_dir]
        command += [*source, "--serve", "--port", "0", "--feedback-file", f"{folder}/feedback.jsonl"]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            port = next(int(found[1]) for line in server.stdout if (found := re.search(r"http://.*:(\d+)/", line)))
            seconds, statuses, memory = load(port, server.pid, queries, args.clients, args.seconds)
        finally:
            server.terminate()
            server.wait()
    asked = {"documents": len(documents), "clients": args.clients, "seconds": args.seconds, "machine": processor()}
    print_line(", ".join(f"{name} {value}" for name, value in asked.items()))
    row = {"queries": len(seconds), "queries/s": len(seconds) / args.seconds}
    row |= {f"p{p} ms": float(np.percentile(seconds, p)) * 1000 for p in (50, 95, 99)}
    row |= {"errors": sum(statuses.values()) - statuses[200]}
    row |= {"MiB at first": memory[0] / 2**20, "MiB at the end": memory[-1] / 2**20}
    print_line(format_table([row]))
    print_line(json.dumps({**asked, **row, "statuses": statuses, "memory, MiB": [round(m / 2**20) for m in memory]}))


def load(
    port: int, server: int, queries: list[str], clients: int, seconds: int
) -> tuple[list[float], collections.Counter, list[int]]:
    """Return seconds of each answer, how often there was which status, and bytes of memory at each tenth of the time
    but the start."""
    latencies: list[float] = []
    statuses: collections.Counter = collections.Counter()
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for query in itertools.cycle(random.Random(number).sample(queries, len(queries))):
            if time.monotonic() > end:
                return
            started = time.perf_counter()
            try:
                connection.request(
                    "POST", "/search", json.dumps({"query": query}), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except OSError as error:
                status = type(error).__name__
                connection.close()
            latencies.append(time.perf_counter() - started)
            statuses[status] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    for _ in range(10):
        time.sleep(seconds / 10)
        memory.append(resident(server))
    for thread in threads:
        thread.join()
    return latencies, statuses, memory


def resident(process: int) -> int:
    """Return bytes of a process in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--input-dir", required=True, metavar="PATH", help="documents to search, and to take queries from")
    add("--index-dir", default=None, metavar="DIR", help="an index of them; default: they are encoded at the start")
    add("--model-name", default="splade-tiny", help="model")
    add("--clients", type=positive_int, default=32, help="that ask at once")
    add("--seconds", type=positive_int, default=120, help="of load")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
