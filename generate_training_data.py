"""Make training data from documents: read, cut, drop copies, ask queries, judge them, split, vary, mine hard negatives.

    python generate_training_data.py --input-dir ./docs --output-file training_data.json
    python generate_training_data.py --input-dir documents.jsonl --output-file data/train.jsonl --split 90/10 --seed 7
    python generate_training_data.py --input-dir ./docs --api-base http://localhost:11434/v1 --dry-run
    python generate_training_data.py --domain "contract law" --bootstrap 200 --api-model NAME
    python generate_training_data.py --input-dir ./docs --feedback-file feedback.jsonl --augment typo keyword

Input: a folder of .md .txt .rst .html .pdf .docx .json .jsonl files, one such file, or a collection in the BEIR layout,
of which only the documents are read; a --domain that a language model writes passages about; recorded feedback. Output:
training, validation and test examples, a document and those that share a passage with it in one of the three, and
data_report.html, which shows samples of what was made and left out.

Queries come from a language model behind an OpenAI-compatible API, where OPENAI_API_KEY is set or --api-base given,
and are cut out of the documents otherwise (--generator extractive). What a model answers is kept in a journal beside
the output as it comes: --resume asks nothing twice, after an interrupt as after a change of some documents.
"""

import argparse
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from utils.arguments import ScriptParser, number_in_range, parse_weights, positive_int
from utils.console import print_line, print_skipped, run_script
from utils.documents.chunking import MAX_CHUNK_SIZE, MAX_OVERLAP, MIN_CHUNK_SIZE, MIN_OVERLAP, chunk_documents
from utils.documents.duplicates import NearDuplicateIndex
from utils.documents.reading import read_documents
from utils.files import check_writable, write_text
from utils.journal import Journal
from utils.records import Chunk, Document, TrainingExample, write_examples
from utils.search.scorers import open_text_encoder
from utils.search.synonyms import Synonyms
from utils.training_data.augmentation import DEFAULT_SHARE, REPHRASING_TOKENS, VARIANT_KINDS, augment_queries
from utils.training_data.bootstrap import estimate_document_tokens, write_documents
from utils.training_data.data_report import render_data_report
from utils.training_data.extractive import extractive_examples
from utils.training_data.feedback import read_feedback_examples
from utils.training_data.language_model import LanguageModel, Request
from utils.training_data.model_queries import (
    NEGATIVE_STRATEGIES,
    QUERY_TYPES,
    build_requests,
    estimate_tokens,
    examples_from_answers,
    load_template,
    template_names,
)
from utils.training_data.negatives_bm25 import add_bm25_negatives
from utils.training_data.quality import Rejected, cap_per_document, filter_by_round_trip, filter_examples
from utils.training_data.seq2seq import seq2seq_examples

GENERATORS = ("auto", "openai", "seq2seq", "extractive")
SPLITS = ("training", "validation", "test")


def main(args: argparse.Namespace) -> None:
    outputs = _output_files(args)
    args.generator = _generator(args)
    args.augment = parse_weights(args.augment, "augmentation", VARIANT_KINDS, DEFAULT_SHARE, maximum=1)
    synonyms = Synonyms(args.synonyms) if args.synonyms else None
    if "synonym" in args.augment and not synonyms:
        raise ValueError("--augment synonym needs a file of --synonyms")
    args.query_types = parse_weights(args.query_types, "query type", QUERY_TYPES)
    args.template = load_template(args.template)
    if args.dry_run:
        return print_cost_estimate(args)
    journal = _open_journal(args)
    model = _open_model(args, journal) if _needs_language_model(args) else None

    documents, skipped = load_documents(args, model)
    chunks, near_duplicates = chunk_and_deduplicate(documents, args)
    passages = [chunk for chunk in chunks if chunk.id not in near_duplicates.duplicate_of]
    feedback_examples, skipped_queries = (
        read_feedback_examples(args.feedback_file, passages) if args.feedback_file else ([], [])
    )
    examples, rejected = filter_by_quality(make_examples(passages, args, model, journal), passages, args)
    examples += feedback_examples
    rejected += [Rejected("feedback without a liked document", reason, "") for reason in skipped_queries]
    if not examples and not documents:
        raise ValueError(f"{args.feedback_file}: no query has a document that was liked")
    if not examples:
        raise ValueError(f"{args.input_dir or args.domain}: no document has enough text to make a query from")
    parts = dict(zip(SPLITS, split_by_document(examples, args.split, args.seed, near_duplicates)))
    parts["training"] += augment_queries(parts["training"], args.augment, args.seed, synonyms, model)
    for part in parts.values():
        sources = {example.source for example in part}
        add_bm25_negatives(part, [c for c in passages if c.document_id in sources], args.negatives, near_duplicates)
    if model:
        _print_answers(args, model)

    for name, path in outputs.items():
        if parts[name]:
            write_examples(path, parts[name])
        else:  # an earlier file would be of other documents
            path.unlink(missing_ok=True)
    report(args, outputs, documents, skipped, chunks, near_duplicates, parts, rejected)


def report(
    args: argparse.Namespace,
    outputs: dict[str, Path],
    documents: Sequence[Document],
    skipped: Sequence[str],
    chunks: Sequence[Chunk],
    near_duplicates: NearDuplicateIndex,
    parts: dict[str, list[TrainingExample]],
    rejected: Sequence[Rejected],
) -> None:
    """Say what was made and left out, and show it in data_report.html."""
    examples = [example for part in parts.values() for example in part]
    empty, duplicate_of = len(documents) - len({chunk.document_id for chunk in chunks}), near_duplicates.duplicate_of
    summary = {
        "documents": f"{len(documents):,} ({empty:,} empty), {len(skipped):,} files skipped",
        "passages": f"{len(chunks) - len(duplicate_of):,}; {len(duplicate_of):,} more are copies of one of them",
        "examples": f"{len(examples):,}: {_tally(example.query_type for example in examples)}",
        "queries": _length_summary(example.query for example in examples),
        "positives": _length_summary(example.positive_document for example in examples),
        "left out": f"{len(rejected):,}: {_tally(case.reason for case in rejected)}",
    }
    for name, path in outputs.items():
        summary[name] = f"{len(parts[name]):,} -> {path}" if parts[name] else "none: there are too few documents"
    repeats = [
        Rejected("copied passage", chunk.text, f"{chunk.id} repeats {duplicate_of[chunk.id]}")
        for chunk in chunks
        if chunk.id in duplicate_of
    ]
    unread = [Rejected("unread file", reason, "") for reason in skipped]
    page = args.output_file.with_name("data_report.html")
    title = args.domain or Path(args.input_dir or args.feedback_file).name
    write_text(page, render_data_report(title, summary, examples, [*rejected, *repeats, *unread], args.seed))
    for name, value in (summary | {"report": str(page)}).items():
        print_line(f"{name:<11} {value}")


def load_documents(args: argparse.Namespace, model: LanguageModel | None) -> tuple[list[Document], list[str]]:
    """The documents of --input-dir and those that a model writes about --domain, and what could not be read."""
    documents, skipped = read_documents(args.input_dir) if args.input_dir else ([], [])
    print_skipped(skipped)
    if args.domain:
        written = write_documents(args.domain, args.bootstrap, args.language, model)
        print_line(f"written     {len(written):,} documents of the {args.bootstrap:,} asked for")
        documents = [*documents, *written]
    return documents, skipped


def chunk_and_deduplicate(
    documents: Sequence[Document], args: argparse.Namespace
) -> tuple[list[Chunk], NearDuplicateIndex]:
    """All passages, and which of them are copies of another."""
    vectors = open_text_encoder(args.chunking_model, args.device, args.threads) if args.chunking == "semantic" else None
    chunks = chunk_documents(documents, args.chunk_size, args.chunk_overlap, vectors)
    near_duplicates = NearDuplicateIndex()
    for chunk in chunks:
        near_duplicates.add(chunk.id, chunk.text, cluster=chunk.document_id)
    return chunks, near_duplicates


def make_examples(
    passages: Sequence[Chunk], args: argparse.Namespace, model: LanguageModel | None, journal: Journal | None
) -> list[TrainingExample]:
    """An example for each query that the generator has for a passage."""
    if not passages:  # feedback alone
        return []
    if args.generator == "openai":
        return examples_from_answers(passages, model.complete(_requests(passages, args)))
    if args.generator == "seq2seq":
        count = args.queries_per_passage
        return seq2seq_examples(passages, args.seq2seq_model, count, args.seed, journal, args.device, args.threads)
    return list(extractive_examples(passages, args.crops, args.seed))


def filter_by_quality(
    examples: Sequence[TrainingExample], passages: Sequence[Chunk], args: argparse.Namespace
) -> tuple[list[TrainingExample], list[Rejected]]:
    """The examples that are fit to learn from, and what was left out."""
    examples, rejected = filter_examples(examples)
    if args.round_trip:
        options = args.round_trip, args.round_trip_model, args.device, args.threads
        examples, lost = filter_by_round_trip(examples, passages, *options)
        rejected += lost
    if args.balance:
        examples, beyond = cap_per_document(examples, args.balance, args.seed)
        rejected += beyond
    return examples, rejected


def split_by_document(
    examples: Sequence[TrainingExample],
    shares: Sequence[float],
    seed: int,
    near_duplicates: NearDuplicateIndex | None = None,
) -> list[list[TrainingExample]]:
    """The examples in as many parts as there are shares. Each part but the first gets its share of the documents, at
    least one where the share is above 0 and there is one left beside the first part's; related documents stay
    together."""
    clusters: dict[str, list[str]] = {}
    for source in sorted({example.source for example in examples}):
        clusters.setdefault(near_duplicates.cluster(source) if near_duplicates else source, []).append(source)
    order = list(clusters.values())
    random.Random(seed).shuffle(order)
    total, position = sum(map(len, order)), 1
    part_of: dict[str, int] = {}
    for part, share in enumerate(shares[1:], 1):
        wanted, held = max(1, round(total * share / sum(shares))) if share else 0, 0
        while held < wanted and position < len(order):
            part_of.update(dict.fromkeys(order[position], part))
            held += len(order[position])
            position += 1
    parts: list[list[TrainingExample]] = [[] for _ in shares]
    for example in examples:
        parts[part_of.get(example.source, 0)].append(example)
    return parts


def print_cost_estimate(args: argparse.Namespace) -> None:
    """How much a language model would have to read and write."""
    if not _needs_language_model(args):
        raise ValueError("--dry-run is for what a language model is asked; this asks none")
    read = written = 0
    passages: list[Chunk] = []
    if args.input_dir:
        chunks, near_duplicates = chunk_and_deduplicate(read_documents(args.input_dir).documents, args)
        passages = [chunk for chunk in chunks if chunk.id not in near_duplicates.duplicate_of]
    if args.domain:
        read, written = estimate_document_tokens(args.bootstrap)
        passages += [_typical_passage(args.domain, number) for number in range(args.bootstrap)]
    if args.generator == "openai":
        more = estimate_tokens(
            _requests(passages, args), args.queries_per_passage, args.contrastive_negatives, passages
        )
        read, written = read + more[0], written + more[1]
    each = args.crops + 1 if args.generator == "extractive" else args.queries_per_passage
    count = round(len(passages) * each * args.augment.get("reformulation", 0) * args.split[0] / sum(args.split))
    read, written = read + count * REPHRASING_TOKENS[0], written + count * REPHRASING_TOKENS[1]
    print_line(f"to ask      about {len(passages):,} passages, {_tokens(args, read, written)}")


def _typical_passage(domain: str, number: int) -> Chunk:
    """In place of one that is not written yet."""
    return Chunk(id=f"{domain}#{number}", document_id=domain, title=domain, text="word " * 150)


def _requests(passages: Sequence[Chunk], args: argparse.Namespace) -> list[Request]:
    wanted = args.queries_per_passage, args.contrastive_negatives
    return build_requests(passages, args.template, args.query_types, *wanted, args.language, args.seed)


def _needs_language_model(args: argparse.Namespace) -> bool:
    """Whether a language model is needed."""
    queries = args.generator == "openai" and args.input_dir
    return bool(queries or args.domain or "reformulation" in args.augment)


def _open_journal(args: argparse.Namespace) -> Journal | None:
    """Where costly answers are kept. A language model's outlive all other settings."""
    if args.generator != "seq2seq" and not _needs_language_model(args):
        return None
    work = f"queries of {args.seq2seq_model}" if args.generator == "seq2seq" else "answers of a language model"
    return Journal(args.output_file.with_name(f"{args.output_file.name}.journal"), {"work": work}, args.resume)


def _open_model(args: argparse.Namespace, journal: Journal) -> LanguageModel:
    return LanguageModel(
        args.api_model, journal, args.api_base, args.workers, args.requests_per_minute, args.api_timeout
    )


def _print_answers(args: argparse.Namespace, model: LanguageModel) -> None:
    """What the model was asked in this run and how it answered."""
    failed = Counter(reason for entry in model.entries for reason in entry["failed"])
    read, written = (sum(entry[name] for entry in model.entries) for name in ("read", "written"))
    print_line(f"asked       {len(model.entries):,} questions of {model.model}: {_tokens(args, read, written)}")
    unusable = ", ".join(f"{count:,} {reason}" for reason, count in failed.most_common()) or "none"
    print_line(
        f"unusable    {unusable}; {sum(not entry['answer'] for entry in model.entries):,} questions without an answer"
    )
    if model.unanswered:
        print_line(f"unanswered  {model.unanswered:,} requests; --resume asks them again")


def _tokens(args: argparse.Namespace, read: int, written: int) -> str:
    """Numbers of tokens and, with --price, which is for a million of them, what they cost."""
    cost = f": {(read * args.price[0] + written * args.price[1]) / 1e6:,.2f}" if args.price else ""
    return f"{read:,} tokens to read, {written:,} to write{cost}"


def _output_files(args: argparse.Namespace) -> dict[str, Path]:
    """Where each part goes that has a share; that it can."""
    args.output_file = Path(args.output_file)
    named = {"training": args.output_file, "validation": args.validation_file, "test": args.test_file}
    files = {
        part: Path(file or args.output_file.with_name(f"{part}_data{args.output_file.suffix}"))
        for (part, file), share in zip(named.items(), args.split)
        if share
    }
    if len({file.resolve() for file in files.values()}) < len(files):
        raise ValueError(f"{args.output_file}: two parts of the examples cannot go to the same file")
    for file in files.values():
        check_writable(file)
    return files


def _generator(args: argparse.Namespace) -> str:
    """The one asked for, or found; that what it needs is there."""
    if not (args.input_dir or args.domain or args.feedback_file):
        raise ValueError("nothing to make examples from: give --input-dir, --domain or --feedback-file")
    generator = args.generator
    if generator == "auto":
        known = args.api_base or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
        generator = "openai" if known or args.domain else "extractive"
        print_line(f"generator   {generator}")
    if generator == "seq2seq" and not args.seq2seq_model:
        raise ValueError("--generator seq2seq needs --seq2seq-model, such as macavaney/doc2query-t5-base-msmarco")
    if args.chunking == "semantic" and not args.chunking_model:
        raise ValueError(
            "--chunking semantic needs --chunking-model: minilm, splade-tiny, or another dense or SPLADE model"
        )
    return generator


def _tally(reasons: Iterable[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons).most_common()) or "none"


def _length_summary(texts: Iterable[str]) -> str:
    low, middle, high = np.percentile([len(text.split()) for text in texts], (10, 50, 90))
    return f"{middle:,.0f} words in the middle, from {low:,.0f} to {high:,.0f} in eight of ten"


def parse_split(text: str) -> list[float]:
    """An argparse type: `80/10/10`, the shares of training, validation and, if there are three, test."""
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if not (2 <= len(shares) <= len(SPLITS) and shares[0] > 0 and all(0 <= s < float("inf") for s in shares)):
        raise argparse.ArgumentTypeError(f"must be shares such as 80/10/10 or 90/10, training first, not '{text}'")
    return shares


def parse_args() -> argparse.Namespace:
    parser = ScriptParser(__doc__)
    add = parser.add_argument
    add("--input-dir", default=None, metavar="PATH", help="folder or file of documents")
    add("--domain", default=None, metavar="NAME", help="what a language model writes documents about, for lack of them")
    add("--bootstrap", type=positive_int, default=100, metavar="N", help="documents to write about the domain")
    add("--feedback-file", default=None, metavar="FILE", help="recorded judgments of search results, JSON Lines")
    add("--output-file", default="training_data.json", metavar="FILE", help="training examples, .json or .jsonl")
    add("--validation-file", default=None, metavar="FILE", help="default: validation_data beside the output file")
    add("--test-file", default=None, metavar="FILE", help="default: test_data beside the output file")
    add("--split", type=parse_split, default="80/10/10", metavar="SHARES",
        help="of the documents, for training, validation and test; 90/10 for no test file")  # fmt: skip
    add("--generator", choices=GENERATORS, default="auto", help="what makes the queries; auto: openai with a key or "
        "--api-base, else extractive")  # fmt: skip
    add(
        "--crops",
        type=number_in_range(int, 0),
        default=3,
        help="extractive: sentences and passages cut from a chunk as queries",
    )
    add("--seq2seq-model", default=None, metavar="NAME", help="seq2seq: folder or hub id of a doc2query model")
    add("--api-base", default=None, metavar="URL", help="openai: the endpoint; default: OPENAI_BASE_URL, or OpenAI's")
    add("--api-model", default=None, metavar="NAME", help="openai: the model; default: the only one at the endpoint")
    add("--api-timeout", type=number_in_range(float, 1), default=120, metavar="SECONDS", help="openai: for an answer")
    add("--workers", type=positive_int, default=8, help="openai: requests at a time")
    add("--requests-per-minute", type=number_in_range(float, 0.01), default=None, metavar="N", help="openai: at most")
    add("--queries-per-passage", type=positive_int, default=3, help="openai, seq2seq: queries to write for a passage")
    add("--query-types", nargs="+", default=list(QUERY_TYPES), metavar="TYPE[=SHARE]",
        help="openai: kinds of queries, and how many of each in proportion")  # fmt: skip
    add("--contrastive-negatives", type=number_in_range(int, 0, len(NEGATIVE_STRATEGIES)), default=1, metavar="N",
        help="openai: passages to write that do not answer")  # fmt: skip
    add(
        "--template",
        default="generic",
        metavar="NAME",
        help="openai: prompt, a file or one of " + ", ".join(template_names()),
    )
    add("--language", default=None, help="openai: of the queries; default: that of each passage")
    add("--price", type=number_in_range(float, 0), nargs=2, default=None, metavar=("READ", "WRITTEN"),
        help="openai: of a million tokens, for the summary")  # fmt: skip
    add("--dry-run", action="store_true", help="openai: only say what would be asked")
    add("--resume", action="store_true", help="openai, seq2seq: go on with the journal that is there")
    add("--round-trip", type=positive_int, default=None, metavar="K",
        help="leave out queries that put K other passages or more above their own")  # fmt: skip
    add("--round-trip-model", default="bm25", metavar="NAME", help="by which: bm25, minilm, a dense or a SPLADE model")
    add("--balance", type=positive_int, default=None, metavar="N", help="examples of a document at most")
    add("--augment", nargs="+", default=[], metavar="KIND[=SHARE]",
        help=f"variants of training queries: {', '.join(VARIANT_KINDS)}; for a share of {DEFAULT_SHARE} each, "
        "unless said")  # fmt: skip
    add("--synonyms", default=None, metavar="FILE", help="lines of `a, b` or `a => b`: abbreviations and synonyms")
    add("--negatives", type=number_in_range(int, 0), default=0, help="hard negatives an example, mined with BM25")
    add("--chunking", choices=("size", "semantic"), default="size",
        help="cut long sections by size, or where the topic shifts")  # fmt: skip
    add("--chunking-model", default=None, metavar="NAME", help="semantic: minilm, a dense or a SPLADE model")
    add(
        "--chunk-size",
        type=number_in_range(int, MIN_CHUNK_SIZE, MAX_CHUNK_SIZE),
        default=MAX_CHUNK_SIZE,
        help="characters a chunk at most",
    )
    add("--chunk-overlap", type=number_in_range(float, MIN_OVERLAP, MAX_OVERLAP), default=0.15, help="share of a chunk")
    add("--seed", type=int, default=42, help="seed of the random choices")
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
