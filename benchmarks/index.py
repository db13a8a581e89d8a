"""Measure an index of many passages: how fast it is made, opened, changed and searched, and its size.

    .venv/bin/python -m benchmarks.index --input-dir build/demo/python_docs --passages 100000

The vectors are those of real passages, mixed: of each term, a mixed one has the weight in one passage with a
probability of 0.7, else that in another, changed by up to a fifth, so that a term is in as many of them as of real
ones; texts are the beginnings of real ones. Queries are the first eight words of documents,
and search by the model, by words, and by both, ten documents each; encoding is not part of it. "recall" is the share of
the ten best by an exhaustive product. bm25s searches the same texts in the same run and, where they are installed (pip
install pyseismic-lsr splade-index), Seismic, at three of its settings (query_cut, heap_factor), and splade-index the
same vectors.
"""

import argparse
import functools
import importlib.util
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import scipy.sparse
import torch

from benchmarks.common import model_folder, parser, report, resident, sample
from utils.arguments import positive_int
from utils.console import progress_bar, run_script
from utils.records import Document
from utils.search.document_index import DocumentIndex
from utils.search.lexical import BM25Index
from utils.splade.encoder import SpladeEncoder
from utils.splade.vectors import SparseVector, to_csr

TOP_K = 10
ADDED = 1000  # passages added to the index that there is
PASSAGE_CHARACTERS = 1000
KEPT = 0.7  # chance of a term to have its weight in the first of two passages, rather than in the second
NOISE_SEED = 2**40  # added to a vector's number
GOLDEN, FACTORS = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SEISMIC_SETTINGS = (10, 0.7), (20, 0.8), (60, 0.9)
BLOCK = 10_000  # vectors in a product at a time


class Mixer:
    """Stands in for an encoder: the vector of the Nth text is a mixture of real ones, the same in every run."""

    max_length, fingerprint, name = 512, "mixed", "mixed"

    def __init__(self, vectors: Sequence[SparseVector], vocabulary: int) -> None:
        self.vectors, self.vocabulary = [vector for vector in vectors if len(vector.indices)], vocabulary
        self.first = 0

    def count_tokens(self, texts: Sequence[str]) -> Iterator[int]:
        return itertools.repeat(1, len(texts))

    def encode_stream(self, texts: Iterable[str], **options: object) -> Iterator[SparseVector]:
        for number, _ in enumerate(texts, self.first):
            yield self.vector(number)

    def vector(self, number: int) -> SparseVector:
        parts = []
        for place, chosen in enumerate(np.random.default_rng(number).integers(0, len(self.vectors), 2)):
            indices, values = self.vectors[chosen]
            kept = (chances(number, indices) < KEPT) == (place == 0)
            parts.append((indices[kept], values[kept]))
        indices, values = map(np.concatenate, zip(*parts))
        order = np.argsort(indices)
        noise = 0.8 + 0.4 * chances(number + NOISE_SEED, indices)
        return SparseVector(indices[order], (values * noise).astype(np.float32)[order])


def chances(seed: int, indices: np.ndarray) -> np.ndarray:
    """Return a number from 0 to 1 for each index, by splitmix64's finalizer (Steele, Lea and Flood 2014)."""
    x = indices.astype(np.uint64) * np.uint64(GOLDEN) + np.uint64(seed * FACTORS[0] % 2**64)
    for shift, factor in zip((30, 27), FACTORS):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))) / 2**64


def main(args: argparse.Namespace) -> None:
    texts = [text[:PASSAGE_CHARACTERS] for text in sample(args)]
    queries = [" ".join(text.split()[:8]) for text in texts[: args.queries]]
    with model_folder(args.model_name, texts) as folder:
        encoder = SpladeEncoder.from_pretrained(folder, args.device)
        mixer = Mixer(encoder.encode(texts, show_progress=True), encoder.vocabulary_size)
        vectors = [encoder.encode_query(query) for query in queries]
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "index")
        documents = (Document(id=str(i), text=texts[i % len(texts)]) for i in range(args.passages))
        before = resident("VmRSS")
        started = time.perf_counter()
        with DocumentIndex(mixer, place, write=True, language="en") as index:
            index.add(documents, show_progress=True)
            figures["build, passages/s"] = args.passages / (time.perf_counter() - started)
            figures["memory, MB"] = (resident("VmRSS") - before) / 1e6
            figures["terms"] = index.mean_terms
            mixer.first = args.passages
            more = [Document(id=f"more {i}", text=texts[i % len(texts)]) for i in range(ADDED)]
            started = time.perf_counter()
            index.add(more)
            figures[f"{ADDED:,} more, s"] = time.perf_counter() - started
            index.remove(document.id for document in more)
        figures["disk, MB"] = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
        started = time.perf_counter()
        index = DocumentIndex(None, place)
        figures["open, s"] = time.perf_counter() - started
        exact = exhaustive(mixer, vectors, args.passages)
        asked = list(zip(vectors, queries))
        rows.append(measured("ours", lambda q: [h.document for h in index.search(q[0], top_k=TOP_K)], asked, exact))
        rows.append(measured("ours, words", lambda q: index.search(words=q[1], top_k=TOP_K), asked))
        rows.append(measured("ours, hybrid", lambda q: index.search(*q, top_k=TOP_K), asked))
        index.close()
    started = time.perf_counter()
    words = BM25Index([texts[i % len(texts)] for i in range(args.passages)], "en")
    seconds = time.perf_counter() - started
    rows.append(measured("bm25s, words", lambda q: words.search([q[1]], TOP_K), asked) | {"build, s": seconds})
    for peer, opened in PEERS.items():
        if importlib.util.find_spec(peer):
            started = time.perf_counter()
            searches = opened(mixer, args.passages)
            seconds = time.perf_counter() - started
            rows += [
                measured(f"{peer}{setting}", search, asked, exact) | {"build, s": seconds}
                for setting, search in searches.items()
            ]
    setting = {"passages": args.passages, "queries": len(queries)} | {k: round(v, 2) for k, v in figures.items()}
    report(args, setting, rows)


def blocks(mixer: Mixer, count: int) -> Iterator[scipy.sparse.csr_array]:
    """Yield the [BLOCK, vocabulary] matrices of all vectors."""
    for start in progress_bar(range(0, count, BLOCK), desc="vectors", unit="blocks", leave=False):
        yield to_csr([mixer.vector(i) for i in range(start, min(count, start + BLOCK))], mixer.vocabulary)


def exhaustive(mixer: Mixer, queries: Sequence[SparseVector], count: int) -> list[set[int]]:
    """Return the TOP_K best of each query."""
    matrix = to_csr(queries, mixer.vocabulary)
    best_scores, best = np.zeros((len(queries), 0)), np.zeros((len(queries), 0), int)
    for number, block in enumerate(blocks(mixer, count)):
        scores = np.hstack([best_scores, (matrix @ block.T).toarray()])
        places = np.hstack([best, np.arange(block.shape[0])[None].repeat(len(queries), 0) + number * BLOCK])
        kept = np.argsort(-scores, axis=1, kind="stable")[:, :TOP_K]
        best_scores, best = np.take_along_axis(scores, kept, 1), np.take_along_axis(places, kept, 1)
    return [set(row) for row in best.tolist()]


def measured(
    name: str, search: Callable[[tuple[SparseVector, str]], list], queries: list, exact: list[set[int]] | None = None
) -> dict[str, object]:
    """Return a row: milliseconds per query and, given the best of each, recall."""
    for query in queries:
        search(query)
    milliseconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(search(query))
        milliseconds.append((time.perf_counter() - started) * 1000)
    row = {"": name} | {f"p{p} ms": float(np.percentile(milliseconds, p)) for p in (50, 95, 99)}
    recall = np.mean([len(best & set(hits)) / TOP_K for best, hits in zip(exact, found)]) if exact else ""
    return row | {"recall": recall, "build, s": ""}


def open_seismic(mixer: Mixer, count: int) -> dict[str, Callable[[tuple[SparseVector, str]], list[int]]]:
    from seismic import SeismicDataset, SeismicIndex, get_seismic_string

    dataset, kind = SeismicDataset(), get_seismic_string()
    tokens = np.array([str(i) for i in range(mixer.vocabulary)], dtype=kind)
    for i in range(count):
        indices, values = mixer.vector(i)
        dataset.add_document(str(i), tokens[indices], values)
    index = SeismicIndex.build_from_dataset(dataset)

    def search(cut: int, factor: float, query: tuple[SparseVector, str]) -> list[int]:
        indices, values = query[0]
        options = {"k": TOP_K, "query_cut": cut, "heap_factor": factor}
        hits = index.search(query_id="0", query_components=tokens[indices], query_values=values, **options)
        return [int(hit[2]) for hit in hits]

    return {f", {cut}, {factor}": functools.partial(search, cut, factor) for cut, factor in SEISMIC_SETTINGS}


def open_splade_index(mixer: Mixer, count: int) -> dict[str, Callable[[tuple[SparseVector, str]], list[int]]]:
    import splade_index

    matrix = scipy.sparse.vstack(list(blocks(mixer, count))).tocsc()
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    columns = torch.sparse_csc_tensor(*parts, size=matrix.shape)
    asked: list[SparseVector] = []

    def encode_query(queries: Sequence[str], **options: object) -> list[torch.Tensor]:
        indices, values = asked[-1]
        return [torch.sparse_coo_tensor(indices[None], values, (mixer.vocabulary,))]

    tokenizer = SimpleNamespace(get_vocab=lambda: {str(i): i for i in range(mixer.vocabulary)})
    model = SimpleNamespace(encode_document=lambda *a, **o: columns, encode_query=encode_query, tokenizer=tokenizer)
    backend = "numba" if importlib.util.find_spec("numba") else "numpy"
    index = splade_index.SPLADE(backend=backend)
    index.index(model, [""] * count, show_progress=False)

    def search(query: tuple[SparseVector, str]) -> list[int]:
        asked.append(query[0])
        return index.retrieve([query[1]], k=TOP_K, return_as="doc_ids", show_progress=False)[0].tolist()

    return {"": search}


PEERS = {"seismic": open_seismic, "splade_index": open_splade_index}


if __name__ == "__main__":
    arguments = parser(__doc__, rounds=1, documents=2000)
    arguments.add_argument("--passages", type=positive_int, default=100_000, help="passages in the index")
    arguments.add_argument("--queries", type=positive_int, default=200, help="queries")
    run_script(main, arguments.parse_args())
