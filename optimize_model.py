"""Make a tuned model smaller and faster, or a graph that other programs run.

    python optimize_model.py --model-dir ./fine_tuned_splade --output-dir ./optimized --quantize int8
    python optimize_model.py --model-dir ./fine_tuned_splade --output-dir ./optimized --prune-vocabulary ./docs \\
        --quantize int8 --measure --test-file test_data.json
    python optimize_model.py --model-dir ./fine_tuned_splade --output-dir ./graph --export onnx
    python optimize_model.py --model-dir ./fine_tuned_splade --output-dir ./graph --export onnx --quantize int8 \\
        --top-terms 256

The output folder is a model for all scripts: `test_evaluate.py --compare ./optimized` says what was lost,
`embedder.py` and `test_queries.py` run it, and an index that the original made stays good.

--prune-vocabulary cuts the terms that none of the documents and none of the training queries activates: search over
these documents finds exactly the same. --keep-terms cuts further, down to the heaviest; --prune-inputs cuts the tokens
that do not occur in them, whose words are then split into smaller ones. --quantize int8 keeps the weights in 8 bits,
rounded such that the documents of --calibrate or --prune-vocabulary lose least, and computes in 8 bits where the
kernels in C++ run, else in float32. --export onnx writes network and head as one graph: input_ids and
attention_mask in, the weights of the vocabulary out or, with --top-terms, the indices and values of the heaviest terms.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from utils.arguments import ScriptArguments, ScriptParser, positive_int, refuse_idle_flags
from utils.console import format_table, print_line, print_skipped, run_script
from utils.device import bfloat16_is_fast
from utils.documents.reading import read_documents
from utils.evaluation.collection import Collection
from utils.evaluation.reading import read_test_data
from utils.export.calibration import TEXTS, input_moments
from utils.export.folders import Optimization, write_optimized
from utils.export.graph import check_libraries
from utils.export.measuring import SAMPLE, Measurement, comparison_rows, draw_measurements, measure
from utils.export.pieces import spelling_pieces
from utils.export.vocabulary import VocabularyUse, measure_use
from utils.files import UNFINISHED, check_writable, replacing, write_json
from utils.models import resolve_model
from utils.records import Document, read_examples
from utils.splade.base_encoder import Encoder
from utils.splade.model_folder import CONFIG_NAME, check_original, read_model_folder
from utils.splade.opening import open_encoder

CURVE = (0.75, 0.5, 0.25, 0.1)  # shares of the active terms that --measure keeps


def main(args: ScriptArguments) -> None:
    check_flags(args)
    check_original(args.model_dir, read_model_folder(args.model_dir).config)
    check_writable(args.output_dir, folder=True)
    check_replaceable(Path(args.output_dir))
    if args.export:
        check_libraries(args.export)
    documents = load_documents(args.prune_vocabulary) if args.prune_vocabulary else []
    calibrating = load_documents(args.calibrate) if args.calibrate else documents
    data = read_test_data(args.test_file, args.docs_file) if args.test_file else None
    optimization, use, notes = Optimization(precision=args.quantize or "float32"), None, {}
    if calibrating:
        encoder = open_encoder(args.model_dir, args.device, precision="float32", threads=args.threads)
    if args.quantize == "int8" and calibrating:
        texts = [document.full_text for document in evenly(calibrating, TEXTS)]
        optimization = optimization._replace(moments=input_moments(encoder, texts))
    if documents:
        queries = training_queries(args.train_file, encoder)
        use = measure_use(encoder, documents, queries, args.prune_inputs)
        optimization = cut_vocabulary(optimization, use, encoder, args)
        notes = {"passages": use.passages, "queries": use.queries}
    optimization = optimization._replace(graph=args.export, top_terms=args.top_terms)
    write_optimized(args.model_dir, optimization, args.output_dir, notes)
    print_line(f"{optimization.describe()} -> {args.output_dir}")
    if args.measure:
        measure_all(args, optimization, use, documents, data)


def check_flags(args: ScriptArguments) -> None:
    """Check that the flags go together.

    Raises:
        ValueError: one is missing, or has no effect beside the others.
    """
    refuse_idle_flags(
        args,
        [
            (args.prune_vocabulary, "--prune-vocabulary", "keep_terms prune_inputs train_file"),
            (args.export, "--export", "top_terms"),
            (args.quantize == "int8", "--quantize int8", "calibrate"),
            (args.measure, "--measure", "test_file docs_file"),
        ],
    )
    if not (args.prune_vocabulary or args.quantize or args.export):
        raise ValueError("nothing to do: name --prune-vocabulary, --quantize or --export")
    if args.quantize == "float16" and not args.export:
        raise ValueError("float16 is for graphs: add `export`, or choose `quantize=int8`")
    if args.prune_inputs and (args.export or args.quantize != "int8"):
        raise ValueError("`prune_inputs` saves something in a model in 8 bits alone: choose `quantize=int8`")
    if args.measure and not (args.prune_vocabulary or args.test_file):
        raise ValueError("`measure` needs documents: name `test_file` or `prune_vocabulary`")
    if Path(args.output_dir).resolve() == Path(resolve_model(args.model_dir)).resolve():
        raise ValueError(f"{args.output_dir}: is the model itself; name another `output_dir`")


def check_replaceable(folder: Path) -> None:
    """Check that a folder has nothing but a model that may be replaced.

    Raises:
        ValueError: it has other files.
    """
    others = [path for path in folder.glob("*") if not path.name.startswith(UNFINISHED)]  # which a kill leaves
    if others and not (folder / CONFIG_NAME).is_file():
        raise ValueError(f"{folder}: has files and is no model; name a new `output_dir`")


def load_documents(path: str) -> list[Document]:
    """Read documents, and say what was not read.

    Raises:
        ValueError, OSError: see `read_documents`.
    """
    documents, skipped = read_documents(path)
    print_skipped(skipped)
    return documents


def evenly(documents: Sequence[Document], count: int) -> Sequence[Document]:
    """Return `count` of the documents at most, from all over them."""
    return documents[:: max(1, len(documents) // count)][:count]


def training_queries(train_file: str | None, encoder: Encoder) -> list[str]:
    """Return the queries that the model was trained on: those of `train_file`, by default of the file that the model
    names, if it is there."""
    path = train_file or encoder.training_notes.get("train_file")
    if not path or not (train_file or Path(path).is_file()):
        print_line("no training queries: name their `train_file`, lest terms that only queries have be cut")
        return []
    queries = [example.query for example in read_examples(path)]
    print_line(f"terms of the {len(queries):,} queries in {path} stay, too")
    return queries


def cut_vocabulary(
    optimization: Optimization, use: VocabularyUse, encoder: Encoder, args: ScriptArguments
) -> Optimization:
    """Return the optimization with what stays of the vocabulary, and say how much that is.

    Raises:
        ValueError: no text has a term, or the model is none that tokens can be cut from.
    """
    active, terms = use.terms(), use.terms(args.keep_terms)
    if not len(active):
        raise ValueError(f"{args.prune_vocabulary}: the model gives no term to any document; is it a SPLADE model?")
    found = f"{use.passages:,} passages and {use.queries:,} queries have {len(active):,} of {encoder.vocabulary_size:,}"
    lost = 1 - use.weights[terms].sum() / use.weights[active].sum()
    print_line(f"{found} terms; {len(terms):,} stay" + (f", {lost:.2%} of the weights are lost" if lost else ""))
    if not args.prune_inputs:
        return optimization._replace(terms=terms)
    if encoder.query_weights is not None:
        raise ValueError(f"model '{args.model_dir}': its queries are their own tokens; leave `prune_inputs` out")
    use.pieces[spelling_pieces(encoder.tokenizer)] = True
    use.pieces[terms] = True  # their weights are the same in most models, and their words are what is shown
    return optimization._replace(terms=terms, pieces=use.pieces.nonzero()[0])


def variants(optimization: Optimization, use: VocabularyUse | None) -> Iterator[tuple[str, Optimization]]:
    """Yield, by name, the steps of an optimization each alone, and further cuts of the vocabulary."""
    terms, precision, graph = optimization.terms, optimization.precision, optimization.graph
    if terms is not None and (precision != "float32" or graph):
        yield "pruned", Optimization(terms=terms)
    if precision == "int8" and (terms is not None or graph):
        yield "int8", Optimization(precision=precision, moments=optimization.moments)
    if optimization.moments:
        yield "not calibrated", optimization._replace(moments=None)
    if graph and (terms is not None or precision != "float32"):
        yield graph, Optimization(graph=graph)
    for share in CURVE if use else ():
        fewer = use.terms(max(1, round(share * len(terms))))
        yield f"{share:.0%} of the terms", optimization._replace(terms=fewer)


def measure_all(
    args: ScriptArguments,
    optimization: Optimization,
    use: VocabularyUse | None,
    documents: list[Document],
    data: Collection | None,
) -> None:
    """Measure the original, the optimized model, and each step of it; print a table, write its figures and, where
    judged queries tell the quality, a picture."""
    texts = [document.full_text for document in evenly(data.documents if data else documents, SAMPLE)]
    measured: list[Measurement] = []

    def add(name: str, folder: str | Path, precision: str = "auto") -> None:
        print_line(f"measuring {name}")
        measured.append(measure(name, folder, precision, texts, data, args.threads))

    add("original, float32", args.model_dir, "float32")
    if bfloat16_is_fast(torch.device("cpu")):
        add("original, bfloat16", args.model_dir, "bfloat16")
    add(optimization.describe(), args.output_dir)
    for name, variant in variants(optimization, use):
        with tempfile.TemporaryDirectory() as folder:
            write_optimized(args.model_dir, variant, folder, {})
            add(name, folder)
    rows = comparison_rows(measured)
    print_line(format_table(rows))
    folder = Path(args.output_dir)
    write_json(folder / "optimization.json", {"model": args.model_dir, "sample": len(texts), "variants": rows})
    written: list[Any] = [folder / "optimization.json"]
    if data:
        written.append(folder / "optimization.png")
        with replacing(written[-1]) as unfinished:
            draw_measurements(measured).savefig(unfinished, format="png", dpi=160)
    print_line(f"figures -> {', '.join(map(str, written))}")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    parser.add_model_argument()
    parser.add_argument("--output-dir", default="./optimized", metavar="DIR", help="folder for the optimized model")
    add = parser.add_argument_group("vocabulary").add_argument
    add("--prune-vocabulary", default=None, metavar="DOCS", help="cut terms that none of these documents has")
    train = "training examples, whose queries' terms stay, too; default: those that the model names"
    add("--train-file", default=None, metavar="FILE", help=train)
    add("--keep-terms", type=positive_int, default=None, metavar="N", help="of those, keep the N heaviest alone")
    add("--prune-inputs", action="store_true", help="also cut the tokens that none of the documents has")
    add = parser.add_argument_group("form").add_argument
    add("--quantize", choices=["int8", "float16"], default=None, help="precision of the weights")
    docs = "documents that the 8 bits are rounded for; default: those of --prune-vocabulary, else to the nearest"
    add("--calibrate", default=None, metavar="DOCS", help=docs)
    add("--export", choices=["onnx", "openvino"], default=None, help="a graph with the head inside")
    add("--top-terms", type=positive_int, default=None, metavar="N", help="the graph gives the N heaviest terms alone")
    add = parser.add_argument_group("measuring").add_argument
    add("--measure", action="store_true", help="a table of size, memory, speed and quality, each step alone, too")
    add("--test-file", default=None, metavar="PATH", help="judged queries for the quality, as for test_evaluate.py")
    add("--docs-file", default=None, metavar="PATH", help="documents to search, where the test data has no corpus")
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
