"""Measure what search engines find in the files that embedder.py --engine writes for them, beside the exact scores.

    .venv/bin/python -m benchmarks.engines_parity --collection COLLECTION
    .venv/bin/python -m benchmarks.engines_parity --collection COLLECTION --anserini-jar anserini-0.22.1-fatjar.jar

COLLECTION is a folder in the BEIR layout. Documents are searched whole, as the files have them, cut at the model's
limit. "same 10" is in how many queries the engine's ten best documents are the ten exact ones, whatever their order,
"same order" in how many they stand in the same order, "overlap" how many of the ten are the same on average, and "score
error" the largest difference of a document's score from the exact one, over that. How an engine's row comes about is
told in benchmarks/engine_replays.py. The jar, whose Lucene and Anserini then run, is in `pip download pyserini==0.22.1
--no-deps`, in the folder pyserini/resources/jars of the wheel.
"""

import argparse
import functools
from collections.abc import Sequence

import numpy as np

from benchmarks.engine_replays import REPLAYS, Hits, Search, replay_vespa, run_anserini, run_lucene
from utils.arguments import ScriptParser
from utils.console import format_table, print_line, quiet_libraries, run_script
from utils.evaluation.collection import Collection
from utils.evaluation.metrics import score_run
from utils.evaluation.reading import read_collection
from utils.export.engines.anserini import SCALE as ANSERINI_SCALE
from utils.export.engines.base import HITS
from utils.export.engines.registry import ENGINES
from utils.export.vector_files import open_engine
from utils.records import Document
from utils.splade.opening import open_encoder
from utils.splade.vectors import to_csr

METRIC = "nDCG@10"
HOW = {"milvus": "Milvus Lite", "qdrant": "Qdrant's engine"}  # of the others: the arithmetic, replayed


def main(args: argparse.Namespace) -> None:
    quiet_libraries()
    data = read_collection(args.collection)
    model = open_encoder(args.model, args.device, precision="float32", threads=args.threads)
    documents = list(zip(data.documents, model.encode([document.full_text for document in data.documents])))
    queries = [(Document(id=name, text=text), model.encode_query(text)) for name, text in data.queries.items()]
    asked, stored = (to_csr([vector for _, vector in pairs], model.vocabulary_size) for pairs in (queries, documents))
    scores = (asked @ stored.T).toarray()
    exact = rank([document.id for document in data.documents], scores)
    best = [hits[:HITS] for hits in exact]
    print_line(f"{len(documents):,} documents, {len(queries):,} queries; exact: {METRIC} {ndcg(data, best):.4f}")
    rows = []
    for name, how, search in searches(args.engines or list(ENGINES), args.anserini_jar):
        engine = open_engine(name, model)
        files = [
            "".join(f"{form(*pair)}\n" for pair in pairs)
            for form, pairs in ((engine.format_document, documents), (engine.format_query, queries))
        ]
        found = search(engine.index_definition(), *files)
        unit = ANSERINI_SCALE**2 if name == "anserini" else 1
        errors = [
            abs(score / unit - true[document]) / true[document]
            for hits, true in zip(found, map(dict, exact))
            for document, score in hits
        ]
        ids = [tuple([document for document, _ in hits] for hits in pair) for pair in zip(found, best)]
        rows.append(
            {
                "engine": name,
                "by": how,
                "overlap": f"{np.mean([len({*theirs} & {*ours}) for theirs, ours in ids]):.3f}",
                "same 10": sum({*theirs} == {*ours} for theirs, ours in ids),
                "same order": sum(theirs == ours for theirs, ours in ids),
                METRIC: f"{ndcg(data, found):.4f}",
                "score error": f"{max(errors):.1e}",
                "MB": f"{len(files[0].encode()) / 1e6:.1f}",
            }
        )
    print_line(format_table(rows))


def rank(ids: Sequence[str], scores: np.ndarray) -> list[Hits]:
    """Return the documents with [queries, documents] scores above 0, best first, of equal ones the first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return [[(ids[place], float(row[place])) for place in best if row[place] > 0] for row, best in zip(scores, order)]


def searches(names: Sequence[str], jar: str | None) -> list[tuple[str, str, Search]]:
    """Return the engine, the way and the function of each search."""
    found: list[tuple[str, str, Search]] = [(name, HOW.get(name, "replay"), REPLAYS[name]) for name in names]
    if "vespa" in names:
        found.append(("vespa", "replay, integers", functools.partial(replay_vespa, integers=True)))
    if jar and "opensearch" in names:
        found.append(("opensearch", "Lucene", lambda _, *files: run_lucene(jar, *files)))
    if jar and "anserini" in names:
        found.append(("anserini", "Anserini", lambda _, *files: run_anserini(jar, *files)))
    return found


def ndcg(data: Collection, found: Sequence[Hits]) -> float:
    """Return the mean nDCG@10 of what the queries found."""
    run = ((query, dict(hits)) for query, hits in zip(data.queries, found))
    return score_run(data.qrels, run, [METRIC]).means[METRIC]


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    parser.add_argument("--collection", required=True, metavar="DIR", help="a folder in the BEIR layout")
    parser.add_argument("--model", default="splade-tiny", metavar="NAME", help="a SPLADE model")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="engines to run; default: all")
    parser.add_argument("--anserini-jar", metavar="FILE", help="a jar of Anserini with all it needs, run by java")
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
