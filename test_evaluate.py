"""Measure how well a SPLADE model finds what was judged relevant.

    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file validation_data.json
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --baseline bm25 --compare splade-tiny
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --search splade hybrid
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --search hybrid \
        --learn-weights validation_data.json

The test data is a file of training-format examples (the collection is its documents and the passages that were
generated with it, in test_data_corpus.jsonl beside test_data.json; each query's positive documents are the relevant
ones) or a folder in the BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv, or another --split; judgments in
three columns, or in TREC's four).
Reported: nDCG@10, RR@10, P@5 and R@100 by ir-measures, or its other --metrics (one without a cutoff, such as AP, looks
at all documents), mean active terms of documents and queries, and the latency of one query, encoding and search
together, in ms. A document longer than the model's limit scores as its best passage; its passages' terms are counted
each.
"""

from pathlib import Path
from typing import Any

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    auto_or_positive_int,
    language_code,
    positive_int,
    refuse_idle_flags,
    refuse_overwriting,
)
from utils.console import format_table, print_line, print_long_documents, print_skipped, print_truncated, run_script
from utils.device import PRECISIONS
from utils.documents.reading import read_documents
from utils.evaluation.collection import Collection, pool_examples, read_collection
from utils.evaluation.fusion_weights import learn_weights
from utils.evaluation.metrics import (
    DEFAULT_METRICS,
    check_metrics,
    evaluate_bm25,
    evaluate_search,
    index_collection,
)
from utils.files import check_writable, write_json
from utils.models import load_config
from utils.records import corpus_file, read_examples, read_passages
from utils.search.dense import DenseEncoder
from utils.search.searcher import SEARCHES, DocumentSearch
from utils.search.settings import add_ranking_arguments, ranking_options
from utils.splade.encoder import SpladeEncoder
from utils.splade.model_folder import read_model_folder


def load_test_data(path: str | Path, documents: str | Path | None = None, split: str | None = None) -> Collection:
    """Read the test collection of a BEIR folder, or pool that of a file of examples. `documents` replaces a BEIR
    folder's corpus, and is added to the documents of examples; `split` names a BEIR folder's judgments.

    Raises:
        ValueError, OSError: broken or missing files, or nothing to test with.
    """
    path = Path(path)
    if path.is_dir():
        return read_collection(path, documents, split or "test")
    if split:
        raise ValueError(f"{path}: a file of examples has no splits; --split is for a folder in the BEIR layout")
    examples = read_examples(path)
    passages = read_passages(path, examples)
    data = pool_examples(examples, passages)
    if not data.qrels:
        raise ValueError(f"{path}: no example has both a query and a positive document")
    if documents is not None and passages:
        raise ValueError(f"{corpus_file(path)}: holds the documents that these queries search; leave out --docs-file")
    if documents is not None:
        known = {document.text for document in data.documents}
        added, skipped = read_documents(documents)
        print_skipped(skipped)
        data.documents.extend(d for d in added if d.full_text not in known)
    return data


def load_judged_queries(path: str, data: Collection) -> Collection:
    """Read the collection that weights are learned on.

    Raises:
        ValueError: its queries are those of the test data.
        ValueError, OSError: see `load_test_data`.
    """
    judged = load_test_data(path, split="dev" if Path(path).is_dir() else None)
    shared = {*judged.queries.values()} & {*data.queries.values()}
    if shared:
        raise ValueError(
            f"{path}: {len(shared):,} of its queries are in the test data, too; weights are learned on other queries"
        )
    return judged


def evaluate(
    name: str,
    model: SpladeEncoder,
    data: Collection,
    args: ScriptArguments,
    dense: DenseEncoder | None,
    judged: Collection | None,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Return a row for each kind of search with a model, and one with the weights learned on judged queries, if there
    are any."""
    given = args.batch_size, args.language, dense
    index = index_collection(model, data, *given)
    searches = {kind: DocumentSearch(index, model, kind, **options) for kind in args.search}
    if judged:
        own = {name: options[name] for name in ("fusion", "query_terms")}
        learned = learn_weights(DocumentSearch(index_collection(model, judged, *given), model, **own), judged)
        weights = " ".join(f"{part}={weight:g}" for part, weight in learned.items())
        print_line(f"{name}: --weights {weights}")
        searches[f"hybrid {weights}"] = DocumentSearch(index, model, "hybrid", **{**options, "weights": learned})
    rows = []
    for kind, search in searches.items():
        parts = [name, *([kind] if kind != "splade" else []), *(["reranked"] if search.rerank else [])]
        rows.append(evaluate_search(", ".join(parts), search, data, args.metrics))
    return rows


def main(args: ScriptArguments) -> None:
    test = Path(args.test_file)
    collection = test / "corpus.jsonl", test / "queries.jsonl", test / "qrels" / f"{args.split or 'test'}.tsv"
    collection += (corpus_file(test),)
    refuse_overwriting(args.output_file, test, args.docs_file, *collection)
    if args.output_file:
        check_writable(args.output_file)
    check_metrics(args.metrics)
    refuse_idle_flags(
        args,
        [
            (args.baseline or {"bm25", "hybrid"} & {*args.search}, "--baseline or --search hybrid", "language"),
            ("hybrid" in args.search, "--search hybrid", "learn_weights"),
        ],
    )
    if args.weights and args.learn_weights:
        raise ValueError("--weights has no effect beside --learn-weights; leave one out")
    options = ranking_options(args, args.search)
    names = *args.compare, args.model_dir
    for name in names:  # before the first is measured, which takes long
        load_config(name, read_model_folder(name).subfolder)
    data = load_test_data(args.test_file, args.docs_file, args.split)
    ids = {document.id for document in data.documents}
    missing_ids = {document for grades in data.qrels.values() for document in grades} - ids
    if missing_ids:
        print_line(f"{len(missing_ids):,} judged documents are not in the collection, such as {sorted(missing_ids)[0]}")
    print_line(f"{len(data.documents):,} documents, {len(data.queries):,} queries")
    judged = load_judged_queries(args.learn_weights, data) if args.learn_weights else None
    dense = DenseEncoder(args.dense_model, args.device) if args.dense_model else None
    rows = [evaluate_bm25(data, args.metrics, args.language)] if args.baseline == "bm25" else []
    for name in names:
        model = SpladeEncoder.from_pretrained(name, args.device, args.max_length, args.precision, args.threads)
        model.check_positions(max_length=args.max_length)
        rows += evaluate(name, model, data, args, dense, judged, options)
        print_long_documents(rows[-1]["long_documents"], len(data.documents), model.max_length, name)
        truncated = model.tokenize_and_count_queries(list(data.queries.values()))[1]
        print_truncated(truncated, len(data.queries), "queries", model.query_max_length, name)
    columns = ["model", *args.metrics, "doc_terms", "query_terms", "query_latency_ms"]
    medians = [{**row, "query_latency_ms": row["query_latency_ms"]["p50"]} for row in rows]
    print_line(format_table([{column: row[column] for column in columns} for row in medians]))
    if args.baseline:
        print_line(rows[0]["description"])
    if args.output_file:
        sizes = {"queries": len(data.queries), "documents": len(data.documents)}
        report = {**rows[-1], **sizes}
        if rows[:-1]:
            report["compared"] = rows[:-1]
        write_json(args.output_file, report)
        print_line(f"metrics -> {args.output_file}")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    parser.add_model_argument()
    add = parser.add_argument_group("test data").add_argument
    add("--test-file", required=True, metavar="PATH", help="examples (.json, .jsonl) or a BEIR folder")
    add("--split", default=None, metavar="NAME", help="of a BEIR folder: judgments in qrels/NAME.tsv; default: test")
    add("--docs-file", default=None, metavar="PATH", help="documents to search, where the test data has no corpus")
    add = parser.add_argument_group("rows and columns of the table").add_argument
    add("--baseline", choices=["bm25"], default=None, help="add a row for BM25")
    add("--language", type=language_code, default=None, help="of the texts, for BM25: de, german; default: detected")
    add("--compare", action="append", default=[], metavar="MODEL", help="add a row for another model; repeatable")
    search = "rows for each model, as test_queries.py searches"
    add("--search", nargs="+", choices=SEARCHES, default=["splade"], help=search)
    learn = "judged queries (a file of examples, or a BEIR folder with its split dev) on which the weights of a hybrid "
    learn += "search are learned, for rows of their own"
    add("--learn-weights", default=None, metavar="PATH", help=learn)
    add("--metrics", nargs="+", default=list(DEFAULT_METRICS), metavar="NAME", help="as ir-measures spells them")
    add("--output-file", default=None, metavar="FILE", help="JSON file for the metrics")
    add_ranking_arguments(parser)
    add = parser.add_argument_group("encoding").add_argument
    add("--batch-size", type=auto_or_positive_int, default="auto", help="texts encoded at a time; auto: what suits")
    add("--max-length", type=positive_int, default=None, help="maximum tokens per document; default: the model's")
    parser.add_device_arguments(*PRECISIONS)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
