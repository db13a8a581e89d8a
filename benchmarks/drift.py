"""Measure false alarms and detections of drift between collections, whose shifts are known.

    .venv/bin/python -m benchmarks.drift --collection A B C D E
    .venv/bin/python -m benchmarks.drift --collection A B C D E --tuned A_MODEL B_MODEL C_MODEL D_MODEL E_MODEL

Each is a folder in the BEIR layout. False alarms: two random halves of one collection, up to 2,000 documents of either.
Detections: 300 documents of one collection as the reference, and 300 others of it among which a share is from another
collection, for each ordered pair. Queries likewise, as many as there are up to 300, whose best scores are those that
--model-name finds in the collection of the reference. With --tuned, the models tuned on the collections, documents have
what tuning gains on made queries as a signal, too. An alarm is what test_evaluate.py --drift would call a shift.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import processor
from utils.arguments import ScriptParser, positive_int
from utils.console import format_table, print_line, progress_bar, run_script
from utils.documents.chunking import chunk_documents
from utils.evaluation.collection import Collection
from utils.evaluation.drift import CHANCE, LOW_QUANTILE, MADE_QUERIES, equivalent_share, score_pairs
from utils.evaluation.drift_texts import MAX_UNITS
from utils.evaluation.reading import read_collection
from utils.evaluation.shift import GainLoss, MeanRise, NewWords, Signal, TermShift, WordCounts, count_words, find_shifts
from utils.records import Document
from utils.search.document_index import DocumentIndex
from utils.splade.encoder import SpladeEncoder
from utils.training_data.extractive import extractive_examples

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5)
SIDE = 300  # units of either side of a mixture


class Pool(NamedTuple):
    """The units of all collections.

    Attributes:
        counts: their words.
        units: their places, by collection.
        best: best score of each query in each collection, [queries, collections]; None for documents.
        made: the places of documents with made queries, by collection; empty where there are none.
        scores: of the made queries for the documents, by collection: those of its tuned and of the untuned model.
    """

    counts: WordCounts
    units: dict[str, np.ndarray]
    best: np.ndarray | None
    made: dict[str, np.ndarray]
    scores: dict[str, tuple[np.ndarray, np.ndarray]]


class Alarm(NamedTuple):
    """Whether there was one, by which signal surely, and how large the shift was said to be."""

    raised: bool
    signals: dict[str, bool]
    share: float


def main(args: argparse.Namespace) -> None:
    names = [Path(path).name for path in args.collection]
    if len(set(names)) < len(names) or len(names) < 2:
        raise ValueError("--collection: name two or more folders, no two of one name")
    if args.tuned and len(args.tuned) != len(names):
        raise ValueError(f"--tuned: {len(args.tuned)} models for {len(names)} collections; name one of each")
    model = SpladeEncoder.from_pretrained(args.model_name, args.device, threads=args.threads)
    data = {name: read_collection(path) for name, path in zip(names, args.collection)}
    print_line(f"machine {processor()}, {args.draws} draws, {args.mixtures} of each mixture")
    for kind in ("documents", "queries"):
        if kind == "documents":
            units = {name: [d for d in one.documents if d.full_text] for name, one in data.items()}
            pool = pool_documents(units, model, args)
        else:
            pool = pool_queries(data, model)
        rng = np.random.default_rng(args.seed)
        rows = [_row("none", kind, name, list(halves(pool, name, rng, args.draws))) for name in names]
        for share in SHARES:
            alarms = [
                alarm
                for one, other in progress_bar(list(itertools.permutations(names, 2)), desc=f"{share:.0%}", leave=False)
                for alarm in mixtures(pool, one, other, share, rng, args.mixtures)
            ]
            rows.append(_row(f"{share:.0%} of another", kind, "all pairs", alarms))
        print_line(format_table(rows))


def pool_documents(units: dict[str, list[Document]], model: SpladeEncoder, args: argparse.Namespace) -> Pool:
    """Return the documents of all collections, with made queries where there are tuned models."""
    documents = [document for one in units.values() for document in one]
    pool = Pool(
        count_words([document.full_text for document in documents], model.tokenizer), _places(units), None, {}, {}
    )
    if not args.tuned:
        return pool
    pairs, made = [], {}
    rng = np.random.default_rng(args.seed)
    for name, places in pool.units.items():
        own = []
        for place in rng.permutation(places):
            examples = list(extractive_examples(chunk_documents([documents[place]])))
            if examples and len(own) < 2 * MADE_QUERIES:
                example = examples[rng.integers(len(examples))]
                own.append((example.query, example.positive_document))
        made[name] = np.arange(len(pairs), len(pairs) + len(own))
        pairs += own
    untuned, scores = score_pairs(model, pairs), {}
    for name, folder in zip(units, args.tuned):
        tuned = SpladeEncoder.from_pretrained(folder, args.device, threads=args.threads)
        scores[name] = score_pairs(tuned, pairs), untuned
    return pool._replace(made=made, scores=scores)


def pool_queries(data: dict[str, Collection], model: SpladeEncoder) -> Pool:
    """Return the queries of all collections, with their best scores in each of these."""
    units = {name: list(one.queries.values()) for name, one in data.items()}
    queries = [query for one in units.values() for query in one]
    vectors, best = [model.encode_query(query) for query in queries], []
    for one in data.values():
        with DocumentIndex(model) as index:
            index.add(one.documents, show_progress=True)
            hits = [index.search(vector, top_k=1) for vector in vectors]
        best.append([found[0].score if found else 0.0 for found in hits])
    return Pool(count_words(queries, model.tokenizer), _places(units), np.array(best).T, {}, {})


def halves(pool: Pool, name: str, rng: np.random.Generator, draws: int) -> Iterator[Alarm]:
    """Yield what two random halves of a collection give."""
    for _ in progress_bar(range(draws), desc=name, unit="draws", leave=False):
        units, made = rng.permutation(pool.units[name]), rng.permutation(pool.made.get(name, np.empty(0, int)))
        half, half_made = min(len(units) // 2, MAX_UNITS), len(made) // 2
        yield check(pool, name, np.split(units[: 2 * half], 2), np.split(made[: 2 * half_made], 2), rng)


def mixtures(pool: Pool, one: str, other: str, share: float, rng: np.random.Generator, draws: int) -> Iterator[Alarm]:
    """Yield what units of a collection give with a share of another's among the new ones."""
    for _ in range(draws):
        sides = []
        for places in (pool.units, pool.made):
            own = rng.permutation(places.get(one, np.empty(0, int)))
            others = rng.permutation(places.get(other, np.empty(0, int)))
            size = min(SIDE, len(own) // 2)
            foreign = min(round(share * size), len(others))
            sides.append((own[:size], np.concatenate([own[size : 2 * size - foreign], others[:foreign]])))
        yield check(pool, one, *sides, rng)


def check(
    pool: Pool, name: str, units: Sequence[np.ndarray], made: Sequence[np.ndarray], rng: np.random.Generator
) -> Alarm:
    """Return whether earlier and new units are told apart, as `check_drift` does."""
    places, sizes = np.concatenate(units), [len(units[1])] * 3
    counts = pool.counts.take(places)
    signals: list[Signal] = [MeanRise("split", counts.split_shares()), NewWords(counts), TermShift(counts)]
    if pool.best is not None:
        best = pool.best[places, list(pool.units).index(name)]
        signals.append(MeanRise("low scores", (best < np.quantile(best, LOW_QUANTILE)).astype(float)))
        sizes.append(len(units[1]))
    if pool.scores:
        chosen = np.ix_(*[np.concatenate(made)] * 2)
        signals.append(GainLoss(tuple(matrix[chosen] for matrix in pool.scores[name])))
        sizes.append(len(made[1]))
    found = find_shifts(signals, sizes, CHANCE, int(rng.integers(2**31)))
    alarms = [finding.adjusted_p < CHANCE for finding in found]
    columns = ["split", "new words", "terms", "low scores" if pool.best is not None else "gain"]
    return Alarm(any(alarms), dict(zip(columns, alarms)), equivalent_share(found[2].excess))


def _places(units: dict[str, list]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(one) for one in units.values()])
    return {name: np.arange(end - len(one), end) for (name, one), end in zip(units.items(), ends)}


def _row(shift: str, kind: str, name: str, alarms: Sequence[Alarm]) -> dict[str, object]:
    low, median, high = np.quantile([alarm.share for alarm in alarms], (0.1, 0.5, 0.9))
    by = {signal: sum(alarm.signals[signal] for alarm in alarms) for signal in alarms[0].signals}
    return {
        "shift": shift,
        "of": f"{kind}, {name}",
        "alarms": f"{sum(alarm.raised for alarm in alarms)} of {len(alarms)}",
        **by,
        "share said": f"{median:.0%} ({low:.0%} to {high:.0%})",
    }


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--collection", nargs="+", required=True, metavar="DIR", help="folders in the BEIR layout")
    add("--model-name", default="splade-tiny", help="the untuned model, for word pieces and the scores of queries")
    add("--tuned", nargs="+", default=[], metavar="MODEL", help="models tuned on the collections, in the same order")
    add("--draws", type=positive_int, default=100, help="random halves of each collection")
    add("--mixtures", type=positive_int, default=5, help="draws of each ordered pair and share")
    add("--seed", type=int, default=0, help="seed of the draws")
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
