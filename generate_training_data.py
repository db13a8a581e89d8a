"""Make training data from documents: read, chunk, deduplicate, generate queries, filter, split, vary, mine negatives.

    python generate_training_data.py --input-dir ./docs --output-file training_data.json
    python generate_training_data.py --input-dir documents.jsonl --output-file data/train.jsonl --split 90/10 --seed 7
    python generate_training_data.py --input-dir ./docs --api-base http://localhost:11434/v1 --dry-run
    python generate_training_data.py --domain "contract law" --bootstrap 200 --api-model NAME
    python generate_training_data.py --input-dir ./docs --feedback-file feedback.jsonl --augment typo keyword

Input: a folder of documents, one file (README, Files, has the formats), or a collection in the BEIR layout, of which
only the documents are read; a --domain that a language model writes passages about; recorded feedback. Output:
training, validation and test examples, and data_report.html, which shows samples of what was made and left out.
Documents that share a passage always fall into the same of the three, unless so many share it that it is boilerplate,
of which no examples are made.

Queries come from a language model behind an OpenAI-compatible API, where OPENAI_API_KEY is set or --api-base given,
and are cut out of the documents otherwise (--generator extractive). What a model answers is kept in a journal beside
the output as it comes: --resume reuses it, after an interruption or a change of some documents.
"""

import argparse
import functools
import os
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    number_in_range,
    parse_weights,
    positive_int,
    refuse_idle_flags,
)
from utils.console import print_line, print_skipped, run_script
from utils.documents.chunking import MAX_CHUNK_SIZE, MAX_OVERLAP, MIN_CHUNK_SIZE, MIN_OVERLAP, chunk_documents
from utils.documents.families import Families, group_documents
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
from utils.training_data.language_model import LanguageModel
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
from utils.training_data.splitting import explain_shares, split_by_document
from utils.training_data.summary import rejected_chunks, summarize

GENERATORS = ("auto", "openai", "seq2seq", "extractive")
SPLITS = ("training", "validation", "test")
TYPICAL_WORDS = 150  # assumed of a passage not yet written, to estimate costs; it is asked for with 100 to 200


def main(args: ScriptArguments) -> None:
    # Everything that can be wrong in the settings is found before a document is read or a request paid for.
    if not (args.input_dir or args.domain or args.feedback_file):
        raise ValueError("nothing to make examples from: give --input-dir, --domain or --feedback-file")
    output_file = Path(args.output_file)
    outputs = output_files(output_file, args.validation_file, args.test_file, args.split)
    generator = choose_generator(args.generator, args.api_base, args.domain)
    if generator == "seq2seq" and not args.seq2seq_model:
        raise ValueError("--generator seq2seq needs --seq2seq-model, such as macavaney/doc2query-t5-base-msmarco")
    if args.chunking == "semantic" and not args.chunking_model:
        raise ValueError(
            "--chunking semantic needs --chunking-model: minilm, splade-tiny, or another dense or SPLADE model"
        )
    variants = parse_weights(args.augment, "augmentation", VARIANT_KINDS, DEFAULT_SHARE, maximum=1)
    synonyms = Synonyms(args.synonyms) if args.synonyms else None
    if "synonym" in variants and not synonyms:
        raise ValueError("--augment synonym needs a file of --synonyms")
    requests_for = functools.partial(
        build_requests,
        template=load_template(args.template),
        shares=parse_weights(args.query_types, "query type", QUERY_TYPES),
        queries=args.queries_per_passage,
        negatives=args.contrastive_negatives,
        language=args.language,
        seed=args.seed,
    )
    needs_model = bool((generator == "openai" and args.input_dir) or args.domain or "reformulation" in variants)
    if args.dry_run and not needs_model:
        raise ValueError("--dry-run is for what a language model is asked; these settings ask none")
    refuse_idle_flags(args, flag_needs(args, generator, needs_model, variants))
    chunk = functools.partial(
        chunk_and_group,
        size=args.chunk_size,
        overlap=args.chunk_overlap,
        encoder=args.chunking_model if args.chunking == "semantic" else None,
        device=args.device,
        threads=args.threads,
    )
    if args.dry_run:
        documents, skipped = read_documents(args.input_dir) if args.input_dir else ([], [])
        print_skipped(skipped)
        passages = chunk(documents)[1].passages
        passages += [typical_passage(args.domain, number) for number in range(args.bootstrap if args.domain else 0)]
        queries = args.crops + 1 if generator == "extractive" else args.queries_per_passage
        rephrased = round(len(passages) * queries * variants.get("reformulation", 0) * args.split[0] / sum(args.split))
        costs = [(rephrased * REPHRASING_TOKENS[0], rephrased * REPHRASING_TOKENS[1])]
        if args.domain:
            costs.append(estimate_document_tokens(args.bootstrap))
        if generator == "openai":
            numbers = args.queries_per_passage, args.contrastive_negatives
            costs.append(estimate_tokens(requests_for(passages), *numbers, passages))
        read, written = map(sum, zip(*costs))
        print_line(f"to ask      about {len(passages):,} passages, {format_tokens(read, written, args.price)}")
        return

    # Costly answers are kept as they come, for a resumed run, whatever else it changes.
    journal = model = None
    if needs_model or generator == "seq2seq":
        work = f"queries of {args.seq2seq_model}" if generator == "seq2seq" else "answers of a language model"
        journal = Journal(output_file.with_name(f"{output_file.name}.journal"), {"work": work}, args.resume)
    if needs_model:
        limits = args.workers, args.requests_per_minute, args.api_timeout
        model = LanguageModel(args.api_model, journal, args.api_base, *limits)

    documents, skipped = read_documents(args.input_dir) if args.input_dir else ([], [])
    print_skipped(skipped)
    if args.domain:
        written = write_documents(args.domain, args.bootstrap, args.language, model)
        print_line(f"written     {len(written):,} documents of the {args.bootstrap:,} asked for")
        documents = [*documents, *written]
    chunks, families = chunk(documents)
    passages = families.passages
    feedback_examples, skipped_queries = [], []
    if args.feedback_file:
        feedback_examples, skipped_queries = read_feedback_examples(args.feedback_file, chunks)

    examples: list[TrainingExample] = []
    unanswered: list[Rejected] = []
    if generator == "openai" and passages:
        examples, unanswered = examples_from_answers(passages, model.complete(requests_for(passages)))
    elif generator == "seq2seq" and passages:
        settings = args.seq2seq_model, args.queries_per_passage, args.seed, journal, args.device, args.threads
        examples = seq2seq_examples(passages, *settings)
    else:
        examples = list(extractive_examples(passages, args.crops, args.seed))
    examples, rejected = filter_examples(examples)
    rejected += unanswered
    if args.round_trip:
        settings = args.round_trip, args.round_trip_model, args.device, args.threads
        examples, lost = filter_by_round_trip(examples, passages, *settings)
        rejected += lost
    if args.balance:
        examples, beyond = cap_per_document(examples, args.balance, args.seed)
        rejected += beyond
    examples += feedback_examples
    metadata = {document.id: document.metadata for document in documents if document.metadata}
    for example in examples:
        if example.source in metadata:
            example.metadata = metadata[example.source]
    rejected += [Rejected("feedback without a liked document", reason, "") for reason in skipped_queries]
    if not examples and not documents:
        raise ValueError(f"{args.feedback_file}: no query has a document that was liked")
    if not examples:
        raise ValueError(f"{args.input_dir or args.domain}: no document has enough text of its own for a query")

    parts = dict(zip(SPLITS, split_by_document(examples, args.split, args.seed, families.family_of)))
    shares_note = explain_shares(list(parts.values()), args.split, families.family_of)
    parts["training"] += augment_queries(parts["training"], variants, args.seed, synonyms, model)
    # The other parts get none: the model is measured on all their documents, of which a passage with the query in it,
    # as those that queries are cut out of, would be a better answer than the positive, and not be known as one.
    sources = {example.source for example in parts["training"]}
    neighbors = [chunk for chunk in passages if chunk.document_id in sources]
    mined = add_bm25_negatives(parts["training"], neighbors, args.negatives, families)
    if model:
        print_usage(model, args.price)

    for name, path in outputs.items():
        if parts[name]:
            write_examples(path, parts[name])
        else:  # A file of an earlier run would not match this split.
            path.unlink(missing_ok=True)
    summary = summarize(documents, skipped, chunks, families, parts, rejected)
    for name, path in outputs.items():
        summary[name] = f"{len(parts[name]):,} -> {path}" if parts[name] else "none: there are too few documents"
    if args.negatives:
        unrelated = len({families.family_of.get(source, source) for source in sources})
        summary["negatives"] = f"{mined:,} mined for {len(parts['training']):,} training examples"
        if not mined:
            summary["negatives"] += f": {len(neighbors):,} passages of {unrelated:,} unrelated documents are too few"
    if shares_note:
        summary["split"] = shares_note
    page = output_file.with_name("data_report.html")
    title = args.domain or Path(args.input_dir or args.feedback_file).name
    cases = [*rejected, *rejected_chunks(chunks, families), *(Rejected("unread file", r, "") for r in skipped)]
    written_examples = [example for part in parts.values() for example in part]
    write_text(page, render_data_report(title, summary, written_examples, cases, args.seed))
    for name, value in (summary | {"report": str(page)}).items():
        print_line(f"{name:<11} {value}")


def output_files(training: Path, validation: str | None, test: str | None, shares: Sequence[float]) -> dict[str, Path]:
    """Return where each part goes that has a share.

    Raises:
        ValueError, OSError: two parts go to one file, or a file cannot be written.
    """
    named = {"training": training, "validation": validation, "test": test}
    files = {
        part: Path(file or training.with_name(f"{part}_data{training.suffix}"))
        for (part, file), share in zip(named.items(), shares)
        if share
    }
    if len({file.resolve() for file in files.values()}) < len(files):
        raise ValueError(f"{training}: two parts of the examples cannot go to the same file")
    for file in files.values():
        check_writable(file)
    return files


def choose_generator(generator: str, api_base: str | None, domain: str | None) -> str:
    """Return the generator named, or for `auto`: openai where an endpoint or a domain is given, else extractive."""
    if generator != "auto":
        return generator
    endpoint = api_base or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    generator = "openai" if endpoint or domain else "extractive"
    print_line(f"generator   {generator}")
    return generator


def flag_needs(
    args: ScriptArguments, generator: str, needs_model: bool, variants: Container[str]
) -> tuple[tuple[object, str, str], ...]:
    """Return what flags need beside them, as `refuse_idle_flags` takes it."""
    passages = bool(args.input_dir or args.domain)
    made_by = generator if passages else None
    return (
        (args.domain, "--domain", "bootstrap"),
        (args.split[1], "a second share in --split", "validation_file"),
        (sum(args.split[2:]), "a third share in --split", "test_file"),
        (passages, "--input-dir or --domain", "chunk_size chunking generator round_trip balance negatives"),
        (passages and args.chunking == "size", "documents and --chunking size", "chunk_overlap"),
        (passages and args.chunking == "semantic", "documents and --chunking semantic", "chunking_model"),
        (made_by == "extractive", "documents and --generator extractive", "crops"),
        (made_by in ("openai", "seq2seq"), "documents and --generator openai or seq2seq", "queries_per_passage"),
        (made_by == "seq2seq", "documents and --generator seq2seq", "seq2seq_model"),
        (made_by == "openai", "documents and --generator openai", "query_types template contrastive_negatives"),
        (made_by == "openai" or args.domain, "--generator openai or --domain", "language"),
        (needs_model, "--generator openai, --domain or --augment reformulation",
         "api_base api_model api_timeout workers requests_per_minute price"),
        (needs_model or made_by == "seq2seq", "a model that writes queries or documents", "resume"),
        (args.round_trip, "--round-trip", "round_trip_model"),
        ("synonym" in variants, "--augment synonym", "synonyms"),
    )  # fmt: skip


def chunk_and_group(
    documents: Sequence[Document],
    size: int,
    overlap: float,
    encoder: str | None,
    device: str | None,
    threads: int | None,
) -> tuple[list[Chunk], Families]:
    """Return all chunks of the documents, and which of them, and of the documents, repeat or resemble each other.

    Args:
        size, overlap: see utils.documents.chunking.chunk_documents.
        encoder: the model whose vectors show where the topic shifts, to cut there; None to cut by size.
    """
    encode = open_text_encoder(encoder, device, threads) if encoder else None
    chunks = chunk_documents(documents, size, overlap, encode)
    return chunks, group_documents(documents, chunks)


def typical_passage(domain: str, number: int) -> Chunk:
    """Return a passage as long as one that a language model has yet to write, to estimate costs by."""
    return Chunk(id=f"{domain}#{number}", document_id=domain, title=domain, text="word " * TYPICAL_WORDS)


def print_usage(model: LanguageModel, price: Sequence[float] | None) -> None:
    """Print what the language model was asked in this run, and how it answered."""
    failed = Counter(reason for entry in model.entries for reason in entry["failed"])
    read, written = (sum(entry[name] for entry in model.entries) for name in ("read", "written"))
    print_line(f"asked       {len(model.entries):,} questions of {model.model}: {format_tokens(read, written, price)}")
    unusable = ", ".join(f"{count:,} {reason}" for reason, count in failed.most_common()) or "none"
    unanswered = sum(not entry["answer"] for entry in model.entries)
    print_line(f"unusable    {unusable}; {unanswered:,} questions without an answer")
    if model.unanswered:
        print_line(f"unanswered  {model.unanswered:,} requests; --resume asks them again")


def format_tokens(read: int, written: int, price: Sequence[float] | None) -> str:
    """Return numbers of tokens and, with a `price` for a million of each, what they cost."""
    cost = f": {(read * price[0] + written * price[1]) / 1e6:,.2f}" if price else ""
    return f"{read:,} tokens to read, {written:,} to write{cost}"


def parse_split(text: str) -> list[float]:
    """Parse, as an argparse type, `80/10/10`: the shares of training, validation and, if there are three, test."""
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if not (2 <= len(shares) <= len(SPLITS) and shares[0] > 0 and all(0 <= s < float("inf") for s in shares)):
        raise argparse.ArgumentTypeError(f"must be shares such as 80/10/10 or 90/10, training first, not '{text}'")
    return shares


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    add = parser.add_argument_group("input").add_argument
    add("--input-dir", default=None, metavar="PATH", help="folder or file of documents")
    add("--domain", default=None, metavar="NAME", help="what a language model writes documents about, for lack of them")
    add("--bootstrap", type=positive_int, default=100, metavar="N", help="documents to write about the domain")
    add("--feedback-file", default=None, metavar="FILE", help="recorded judgments of search results, JSON Lines")

    add = parser.add_argument_group("output").add_argument
    add("--output-file", default="training_data.json", metavar="FILE", help="training examples, .json or .jsonl")
    add("--validation-file", default=None, metavar="FILE", help="default: validation_data beside the output file")
    add("--test-file", default=None, metavar="FILE", help="default: test_data beside the output file")
    shares = "of the documents, for training, validation and test; 90/10 for no test file"
    add("--split", type=parse_split, default="80/10/10", metavar="SHARES", help=shares)
    add("--seed", type=int, default=42, help="seed of the random choices")

    add = parser.add_argument_group("passages").add_argument
    add("--chunk-size", type=number_in_range(int, MIN_CHUNK_SIZE, MAX_CHUNK_SIZE), default=MAX_CHUNK_SIZE,
        help="maximum characters per chunk")  # fmt: skip
    overlap = number_in_range(float, MIN_OVERLAP, MAX_OVERLAP)
    add("--chunk-overlap", type=overlap, default=0.15, help="share of a chunk that it has in common with its neighbor")
    chunking = "cut long sections by size, or where the topic shifts"
    add("--chunking", choices=("size", "semantic"), default="size", help=chunking)
    add("--chunking-model", default=None, metavar="NAME", help="semantic: minilm, a dense or a SPLADE model")

    add = parser.add_argument_group("queries").add_argument
    generators = "what makes the queries; auto: openai with a key or --api-base, else extractive"
    add("--generator", choices=GENERATORS, default="auto", help=generators)
    crops = "extractive: sentences and passages cut from a chunk as queries"
    add("--crops", type=number_in_range(int, 0), default=3, help=crops)
    add("--queries-per-passage", type=positive_int, default=3, help="openai, seq2seq: queries per passage")
    add("--seq2seq-model", default=None, metavar="NAME", help="seq2seq: folder or hub id of a doc2query model")
    types = "openai: kinds of queries, and how many of each in proportion"
    add("--query-types", nargs="+", default=list(QUERY_TYPES), metavar="TYPE[=SHARE]", help=types)
    template = f"openai: prompt, a file or one of {', '.join(template_names())}"
    add("--template", default="generic", metavar="NAME", help=template)
    add("--language", default=None, help="openai: language of the queries; default: that of each passage")

    add = parser.add_argument_group("language model (openai)").add_argument
    add("--api-base", default=None, metavar="URL", help="the endpoint; default: OPENAI_BASE_URL, or OpenAI's")
    add("--api-model", default=None, metavar="NAME", help="the model; default: the only one at the endpoint")
    add(
        "--api-timeout",
        type=number_in_range(float, 1),
        default=120,
        metavar="SECONDS",
        help="time to wait for an answer",
    )
    add("--workers", type=positive_int, default=8, help="requests at a time")
    add("--requests-per-minute", type=number_in_range(float, 0.01), default=None, metavar="N", help="limit")
    price = "price of a million tokens read and written, for the summary"
    add("--price", type=number_in_range(float, 0), nargs=2, default=None, metavar=("READ", "WRITTEN"), help=price)
    add("--dry-run", action="store_true", help="only say what would be asked")
    add("--resume", action="store_true", help="openai, seq2seq: go on with the journal that is there")

    add = parser.add_argument_group("filters").add_argument
    round_trip = "drop queries for which K or more other passages rank above their own"
    add("--round-trip", type=positive_int, default=None, metavar="K", help=round_trip)
    searcher = "what searches for it: bm25, minilm (all-MiniLM-L6-v2), another dense or a SPLADE model"
    add("--round-trip-model", default="bm25", metavar="NAME", help=searcher)
    add("--balance", type=positive_int, default=None, metavar="N", help="maximum examples per document")

    add = parser.add_argument_group("variants and negatives").add_argument
    kinds = (
        f"variants of training queries: {', '.join(VARIANT_KINDS)}; for a share of {DEFAULT_SHARE} each, unless said"
    )
    add("--augment", nargs="+", default=[], metavar="KIND[=SHARE]", help=kinds)
    add("--synonyms", default=None, metavar="FILE", help="lines of `a, b` or `a => b`: abbreviations and synonyms")
    add(
        "--negatives",
        type=number_in_range(int, 0),
        default=0,
        help="hard negatives per training example, mined with BM25",
    )
    add("--contrastive-negatives", type=number_in_range(int, 0, len(NEGATIVE_STRATEGIES)), default=1, metavar="N",
        help="openai: passages to write that do not answer")  # fmt: skip
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
