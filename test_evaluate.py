"""Measure how well a SPLADE model finds what was judged relevant, and whether it is better than other systems.

    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file test_data.json
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --baseline bm25 --compare splade-tiny
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --search splade hybrid --also other_beir/
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --run-file lucene.run --run-dir ./runs
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file topics.txt --qrels qrels.txt --docs-file ./docs
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --search hybrid \\
        --learn-weights validation_data.json
    python test_evaluate.py --model-dir ./fine_tuned_splade --test-file beir/ --baseline bm25 --errors 10

The test data is a file of training-format examples (the collection is its documents and the passages that were
generated with it, in test_data_corpus.jsonl beside test_data.json; each query's positive documents are the relevant
ones), a folder in the BEIR layout (corpus.jsonl, queries.jsonl, qrels/test.tsv, or another --split), TREC's topics and
judgments, or a collection of ir_datasets.
Reported: nDCG@10, RR@10, P@5 and R@100 by ir-measures, or its other --metrics (one without a cutoff, such as AP, looks
at all documents), mean active terms of documents and queries, and the latency of one query, encoding and search
together, in ms; and whether --model-dir is better than each other system by the first metric, or how many queries it
would take to tell. A document longer than the model's limit scores as its best passage; its passages' terms are counted
each.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    auto_or_positive_int,
    language_code,
    number_in_range,
    positive_int,
    refuse_idle_flags,
    refuse_overwriting,
)
from utils.console import format_table, print_line, print_long_documents, print_truncated, run_script
from utils.device import PRECISIONS
from utils.evaluation.collection import Collection
from utils.evaluation.drift import check_drift
from utils.evaluation.drift_texts import read_units
from utils.evaluation.error_report import describe_errors, write_seeds
from utils.evaluation.errors import ErrorAnalysis, analyze_errors
from utils.evaluation.fusion_weights import learn_weights
from utils.evaluation.groups import group_queries
from utils.evaluation.metrics import DEFAULT_METRICS, check_metrics, search_depth
from utils.evaluation.reading import read_test_data
from utils.evaluation.report import plots_folder, write_report
from utils.evaluation.results import Results, gather_results, is_trec_file, write_trec_files
from utils.evaluation.systems import (
    Evaluation,
    evaluate_bm25,
    evaluate_run,
    evaluate_search,
    evaluate_vectors,
    index_collection,
)
from utils.evaluation.trec import read_run
from utils.files import check_writable, write_json
from utils.models import load_config
from utils.records import corpus_file
from utils.search.dense import DenseEncoder
from utils.search.document_index import DocumentIndex
from utils.search.searcher import SEARCHES, DocumentSearch
from utils.search.settings import add_ranking_arguments, ranking_options
from utils.splade.base_encoder import Encoder
from utils.splade.model_folder import read_model_folder
from utils.splade.opening import open_encoder
from utils.training_data.extractive import extractive_examples


def load_judged_queries(path: str, data: Collection) -> Collection:
    """Read the collection that weights are learned on.

    Raises:
        ValueError: its queries are those of the test data.
        ValueError, OSError: see `read_test_data`.
    """
    judged = read_test_data(path, split="dev" if Path(path).is_dir() else None)
    shared = {*judged.queries.values()} & {*data.queries.values()}
    if shared:
        raise ValueError(
            f"{path}: {len(shared):,} of its queries are in the test data, too; weights are learned on other queries"
        )
    return judged


class Setting(NamedTuple):
    """What models are evaluated with: the flags, the options of DocumentSearch, and, where there are any, the model of
    dense vectors and the judged queries that weights are learned on."""

    args: ScriptArguments
    options: dict[str, Any]
    dense: DenseEncoder | None
    judged: Collection | None


def evaluate_searches(
    name: str, model: Encoder, data: Collection, setting: Setting, others: list[Evaluation] | None = None
) -> tuple[list[Evaluation], ErrorAnalysis | None]:
    """Evaluate each kind of search with a model, and one with the weights learned on judged queries, if there are any.
    With a list of `others`, the errors of the last are analyzed, too, against the first of all."""
    args, options, dense, judged = setting
    if args.vectors:
        return [evaluate_vectors(name, model, args.vectors, data, args.metrics)], None
    given = args.batch_size, args.language, dense
    started = time.perf_counter()
    with index_collection(model, data, *given) as index:
        rate = len(data.documents) / (time.perf_counter() - started)
        searches = {kind: DocumentSearch(index, model, kind, **options) for kind in args.search}
        if judged:
            own = {name: options[name] for name in ("fusion", "query_terms")}
            with index_collection(model, judged, *given) as other:
                learned = learn_weights(DocumentSearch(other, model, **own), judged)
            weights = " ".join(f"{part}={weight:g}" for part, weight in learned.items())
            print_line(f"{name}: --weights {weights}")
            searches[f"hybrid {weights}"] = DocumentSearch(index, model, "hybrid", **{**options, "weights": learned})
        evaluations = []
        for kind, search in searches.items():
            parts = [name, *([kind] if kind != "splade" else []), *(["reranked"] if search.rerank else [])]
            found = evaluate_search(", ".join(parts), search, data, args.metrics)
            evaluations.append(found._replace(costs=found.costs._replace(documents_per_second=rate)))
        if others is None:
            return evaluations, None
        first = next(iter([*others, *evaluations[:-1]]), None)
        return evaluations, analyze_errors(search, data, evaluations[-1], first, args.metrics[0])


def evaluate_model_on_all(
    name: str,
    precision: str,
    tests: dict[str, Collection],
    setting: Setting,
    others: list[Evaluation] | None = None,
) -> tuple[dict[str, list[Evaluation]], ErrorAnalysis | None]:
    """Evaluate a model on each collection, as `evaluate_searches` does; say what of their texts is cut. Errors are
    those on the first collection."""
    args = setting.args
    model = open_encoder(name, args.device, args.max_length, precision, args.threads)
    model.check_positions(max_length=args.max_length)
    label = f"{name} {precision}" if len(args.precision) > 1 else name
    found, analysis = {}, None
    for test, data in tests.items():
        found[test], errors = evaluate_searches(label, model, data, setting, None if found else others)
        analysis = analysis or errors
        print_long_documents(found[test][-1].long_documents, len(data.documents), model.max_length, label)
        truncated = model.tokenize_and_count_queries(list(data.queries.values()))[1]
        print_truncated(truncated, len(data.queries), "queries", model.query_max_length, label)
    return found, analysis


def split_run(given: str) -> tuple[str, str]:
    """Return the name and the path of a --run-file, by default the file's own name."""
    name, equals, path = given.partition("=")
    return (name, path) if equals and name and not os.path.exists(given) else (Path(given).stem, given)


def read_runs(args: ScriptArguments, data: Collection) -> list[Evaluation]:
    """Evaluate the runs of other systems, each by the name before its `=`, or its file's.

    Raises:
        ValueError: a file is broken, or answers no query of the test data.
        OSError: it cannot be read.
    """
    evaluations = []
    for given in args.run_file:
        name, path = split_run(given)
        run = read_run(path)
        if not run.keys() & data.qrels.keys():
            raise ValueError(f"{path}: has none of the {len(data.qrels):,} judged queries; is it a run on other data?")
        depth, deepest = search_depth(args.metrics, len(data.documents)), max(map(len, run.values()))
        if deepest < depth:
            print_line(f"{path}: has {deepest:,} documents of a query at most, and the metrics look at {depth:,}")
        if missing := [query for query in data.qrels if query not in run]:
            print_line(f"{path}: {len(missing):,} judged queries have no hits, such as {missing[0]}; they count as 0")
        evaluations.append(evaluate_run(name, run, data, args.metrics))
    return evaluations


def print_results(results: Results, group_by: Sequence[str], titled: bool) -> None:
    """Print the table, `titled` by the collection's name, how systems compare, and the groups that are asked for."""
    if titled:
        print_line(f"\n{results.name}")
    print_line(format_table(results.table()))
    for evaluation in results.evaluations:
        if evaluation.description:
            print_line(evaluation.description)
    for comparison in results.comparisons:
        print_line(str(comparison))
    for name in group_by:
        names = [evaluation.system for evaluation in results.evaluations]
        rows = [
            {"group": row.group, "queries": row.queries, **dict(zip(names, row.means))}
            | ({f"{names[-1]} over {names[0]}": str(row.difference)} if row.difference else {})
            for row in results.groups[name]
        ]
        print_line(f"\n{results.metric} by {name}\n{format_table(rows)}")


def check_model_drift(args: ScriptArguments) -> None:
    """Compare documents or queries with what the model was trained on, see utils.evaluation.drift.

    Raises:
        ValueError, ImportError, OSError: flags do not fit, or a file or the model cannot be read.
    """
    used = {"model_dir", "drift", "drift_reference", "index_dir", "output_file", "max_length", "device", "threads"}
    if idle := args.given - used - {"debug"}:
        raise ValueError(f"--{min(idle).replace('_', '-')} has no effect beside --drift; leave it out")
    training = read_model_folder(args.model_dir).config.training
    reference = args.drift_reference or training.get("train_file")
    if not reference:
        raise ValueError(f"{args.model_dir}: does not say what it was trained on; name that as `drift_reference`")
    if not Path(reference).exists():
        raise ValueError(f"{reference}: no such file; name what the model was trained on as `drift_reference`")
    refuse_overwriting(args.output_file, args.drift, reference)
    if args.output_file:
        check_writable(args.output_file)
    units = read_units(args.drift, reference)
    if args.index_dir and units[1].documents:
        raise ValueError(f"{args.drift}: holds documents; --index-dir is for the best scores of queries, leave it out")
    settings = args.device, args.max_length, "auto", args.threads
    model, untuned = open_encoder(args.model_dir, *settings), None
    if training and units[1].documents:
        try:
            untuned = open_encoder(model.base_model, *settings)
        except (ValueError, OSError) as error:
            print_line(f"what tuning gains is left out: {error}")
    with DocumentIndex(model, args.index_dir) if args.index_dir else contextlib.nullcontext() as index:
        drift = check_drift(*units, model, extractive_examples, untuned, index)
    drift.print()
    if args.output_file:
        write_json(args.output_file, drift.report())
        print_line(f"figures -> {args.output_file}")


def searches_by_model(args: ScriptArguments) -> bool:
    """Return whether the last search is by the model's vectors, which show why a passage matched."""
    parts = [part.partition("=")[0] for part in args.weights or ["splade"]]
    last = args.search[-1]
    return last == "splade" or (last == "hybrid" and "splade" in parts) or bool(args.learn_weights)


def check_outputs(args: ScriptArguments) -> None:
    """Check that all outputs can be written, each in a place of its own.

    Raises:
        ValueError, OSError: one cannot.
    """
    test = Path(args.test_file)
    collection = test / "corpus.jsonl", test / "queries.jsonl", test / "qrels" / f"{args.split or 'test'}.tsv"
    inputs = [test, *collection, corpus_file(test), args.docs_file, args.qrels, args.vectors, args.learn_weights]
    inputs += [*args.also, *(split_run(given)[1] for given in args.run_file)]
    outputs = [file for file in (args.output_file, args.report, args.export_errors) if file]
    for file in outputs:
        refuse_overwriting(file, *inputs)
        check_writable(file)
    folders = [folder for folder in (args.run_dir, args.report and plots_folder(args.report)) if folder]
    for folder in folders:
        check_writable(folder, folder=True)
    places = [Path(place).resolve() for place in (*outputs, *folders)]
    if len({*places}) < len(places) or any(is_trec_file(file, args.run_dir) for file in outputs):
        raise ValueError(f"{', '.join(map(str, (*outputs, *folders)))}: two outputs in one place; name another one")
    if overwritten := [name for name in filter(None, inputs) if is_trec_file(name, args.run_dir)]:
        raise ValueError(f"--run-dir {args.run_dir}: {overwritten[0]} is read from there; name another folder")
    if args.report and Path(args.report).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--report {args.report}: it is a page; name a file that ends in .html")


def check_flags(args: ScriptArguments) -> None:
    """Check what can be checked before anything is read.

    Raises:
        ValueError, OSError: flags do not fit, or a file cannot be written.
    """
    check_outputs(args)
    check_metrics(args.metrics)
    lexical = args.baseline or {"bm25", "hybrid"} & {*args.search}
    refuse_idle_flags(
        args,
        [
            (lexical, "--baseline or --search hybrid", "language"),
            ("hybrid" in args.search, "--search hybrid", "learn_weights"),
            (searches_by_model(args), "the model's vectors in the last --search", "errors export_errors"),
        ],
    )
    if args.weights and args.learn_weights:
        raise ValueError("--weights has no effect beside --learn-weights; leave one out")
    idle = {"baseline", "search", "also", "docs_file", "compare", "rerank_model", "learn_weights"}
    idle = (idle | {"errors", "export_errors"}) & args.given
    if args.vectors and idle:
        flag = f"--{min(idle).replace('_', '-')}"
        raise ValueError(f"{flag} has no effect beside --vectors, which --model-dir's queries search; leave one out")


def read_tests(args: ScriptArguments) -> dict[str, Collection]:
    """Read the test data and those of --also, by their names; say how large they are."""
    tests = {args.test_file: read_test_data(args.test_file, args.docs_file, args.split, args.qrels, not args.vectors)}
    for name in args.also:
        if name in tests:
            raise ValueError(f"--also {name}: is the test data already")
        tests[name] = read_test_data(name)
    for name, data in tests.items():
        place = f"{name}: " if len(tests) > 1 else ""
        if not args.vectors:
            print_unknown_documents(data, place)
        counts = [f"{len(data.documents):,} documents"] * (not args.vectors) + [f"{len(data.queries):,} queries"]
        print_line(place + ", ".join(counts))
    return tests


def evaluate_systems(
    args: ScriptArguments, tests: dict[str, Collection], options: dict[str, Any]
) -> tuple[dict[str, list[Evaluation]], int, ErrorAnalysis | None]:
    """Return the evaluations of all systems on each collection, how many of them, the last ones, are of --model-dir,
    and the errors of the last one on the test data, if somebody wants to see them."""
    data = tests[args.test_file]
    judged = load_judged_queries(args.learn_weights, data) if args.learn_weights else None
    dense = DenseEncoder(args.dense_model, args.device) if args.dense_model else None
    found: dict[str, list[Evaluation]] = {
        name: [evaluate_bm25(data, args.metrics, args.language)] if args.baseline == "bm25" else []
        for name, data in tests.items()
    }
    found[args.test_file] += read_runs(args, data)
    explained = args.errors or args.export_errors or (args.report and searches_by_model(args) and not args.vectors)
    models = list(itertools.product((*args.compare, args.model_dir), args.precision))
    setting = Setting(args, options, dense, judged)
    for last, (name, precision) in enumerate(models, 1 - len(models)):
        others = found[args.test_file] if explained and not last else None
        measured, analysis = evaluate_model_on_all(name, precision, tests, setting, others)
        for test, evaluations in measured.items():
            found[test] += evaluations
    return found, len(args.precision) * len(measured[args.test_file]), analysis


def main(args: ScriptArguments) -> None:
    if args.drift:
        return check_model_drift(args)
    refuse_idle_flags(args, [(args.drift, "--drift", "drift_reference index_dir")])
    if not args.test_file:
        raise ValueError("name test data, --test-file, or what to compare with the training data, --drift")
    check_flags(args)
    options = ranking_options(args, args.search)
    for name in (*args.compare, args.model_dir):  # before the first is measured, which takes long
        load_config(name, read_model_folder(name).subfolder)
    tests = read_tests(args)
    groupings = {name: group_queries(data, args.language) for name, data in tests.items()}
    if unknown := [name for name in args.group_by if name not in groupings[args.test_file]]:
        known = ", ".join(groupings[args.test_file])
        raise ValueError(f"--group-by '{unknown[0]}': the queries can be grouped by {known}")
    found, own, analysis = evaluate_systems(args, tests, options)
    metric = args.metrics[0]
    results, *elsewhere = [
        gather_results(name, data, found[name], metric, groupings[name], len(found[name]) - own)
        for name, data in tests.items()
    ]
    print_results(results, args.group_by, titled=bool(elsewhere))
    for other in elsewhere:
        print_results(other, (), titled=True)
    if args.errors:
        print_line(describe_errors(analysis, results.evaluations, metric, args.errors))
    if args.export_errors:
        write_seeds(args.export_errors, analysis, results.data, metric)
        print_line(f"errors -> {args.export_errors}")
    if args.run_dir:
        write_trec_files(args.run_dir, results)
        print_line(f"runs, judgments and values -> {args.run_dir}")
    if args.output_file:
        also = {other.name: other.report() for other in elsewhere}
        write_json(args.output_file, results.report() | ({"also": also} if also else {}))
        print_line(f"metrics -> {args.output_file}")
    if args.report:
        write_report(args.report, [results, *elsewhere], analysis)
        print_line(f"report -> {args.report}")


def print_unknown_documents(data: Collection, place: str) -> None:
    """Say how many judged documents are not in the collection, and how many queries are left out of their own hits."""
    ids = {document.id for document in data.documents}
    if unknown := {document for grades in data.qrels.values() for document in grades} - ids:
        print_line(f"{place}{len(unknown):,} judged documents are not in the collection, such as {min(unknown)}")
    if own := data.own_documents():
        print_line(f"{place}{len(own):,} queries are documents, such as {min(own)}; none is among its own hits")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    parser.add_model_argument()
    add = parser.add_argument_group("test data").add_argument
    test = "examples (.json, .jsonl), a BEIR folder, TREC's topics (with --qrels and --docs-file), or ir_datasets:NAME"
    add("--test-file", default=None, metavar="PATH", help=test)
    add("--split", default=None, metavar="NAME", help="of a BEIR folder: judgments in qrels/NAME.tsv; default: test")
    add("--qrels", default=None, metavar="FILE", help="TREC's judgments of the topics in --test-file")
    add("--docs-file", default=None, metavar="PATH", help="documents to search, where the test data has no corpus")
    vectors = "the documents' vectors, by embedder.py (.jsonl, .npz): they are searched in place of the documents"
    add("--vectors", default=None, metavar="FILE", help=vectors)
    also = "other test data, to see what tuning lost there: a BEIR folder or examples; repeatable"
    add("--also", action="append", default=[], metavar="PATH", help=also)
    add = parser.add_argument_group("systems, a row of the table each").add_argument
    add("--baseline", choices=["bm25"], default=None, help="BM25")
    add("--language", type=language_code, default=None, help="of the texts, for BM25: de, german; default: detected")
    add("--compare", action="append", default=[], metavar="MODEL", help="another model; repeatable")
    run = "another system's run on the test data, in TREC's six columns; repeatable"
    add("--run-file", action="append", default=[], metavar="[NAME=]FILE", help=run)
    search = "for each model, as test_queries.py searches"
    add("--search", nargs="+", choices=SEARCHES, default=["splade"], help=search)
    learn = "judged queries (a file of examples, or a BEIR folder with its split dev) on which the weights of a hybrid "
    learn += "search are learned, for rows of their own"
    add("--learn-weights", default=None, metavar="PATH", help=learn)
    add = parser.add_argument_group("figures").add_argument
    metrics = "as ir-measures spells them; systems are compared by the first"
    add("--metrics", nargs="+", default=list(DEFAULT_METRICS), metavar="NAME", help=metrics)
    group = "also by group of queries: 'query length', 'words in the answer', query_type, a field of the queries"
    add("--group-by", nargs="+", default=[], metavar="NAME", help=group)
    add("--output-file", default=None, metavar="FILE", help="JSON file for all figures")
    report = "HTML page to look at: tables, plots (also as PNG, in FILE's name with _plots), queries that tell the most"
    add("--report", default=None, metavar="FILE", help=report)
    add("--run-dir", default=None, metavar="DIR", help="folder for runs, judgments and each query's values (CSV)")
    add = parser.add_argument_group("errors of the last system, against the first").add_argument
    errors = "print so many queries that lost most, each with its cause, all causes, and the words that cost most"
    add("--errors", type=number_in_range(int, 0), default=0, metavar="N", help=errors)
    export = "file for all lost queries, JSON or JSON Lines, as generate_training_data.py --seed-queries reads it"
    add("--export-errors", default=None, metavar="FILE", help=export)
    add = parser.add_argument_group("drift, in place of test data").add_argument
    drift = "documents, or queries (.txt, one a line, or .jsonl), to compare with what the model was trained on"
    add("--drift", default=None, metavar="PATH", help=drift)
    reference = "documents, training examples or earlier queries; default: the examples that the model names"
    add("--drift-reference", default=None, metavar="PATH", help=reference)
    add("--index-dir", default=None, metavar="DIR", help="index that the queries search, to compare their best scores")
    add_ranking_arguments(parser)
    add = parser.add_argument_group("encoding").add_argument
    add("--batch-size", type=auto_or_positive_int, default="auto", help="texts encoded at a time; auto: what suits")
    add("--max-length", type=positive_int, default=None, help="maximum tokens per document; default: the model's")
    parser.add_device_arguments(*PRECISIONS, several=True)
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
