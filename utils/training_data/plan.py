"""A run's plan: what the arguments of the generation come to, once they are checked."""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.arguments import ScriptArguments, parse_weights, refuse_idle_flags, refuse_overwriting
from utils.console import print_line
from utils.device import resolve_device
from utils.documents.families import Families
from utils.languages import language_name
from utils.records import Chunk, Document, SeedQuery
from utils.search.synonyms import Synonyms
from utils.training_data.augmentation import DEFAULT_SHARE, VARIANT_KINDS
from utils.training_data.language_model import Request
from utils.training_data.model_queries import QUERY_TYPES, build_requests, load_template
from utils.training_data.passages import chunk_and_group
from utils.training_data.seed_queries import read_seed_queries
from utils.training_data.splitting import all_outputs, output_files, report_file

GENERATORS = ("auto", "openai", "seq2seq", "extractive")


@dataclass(frozen=True)
class Plan:
    """What the arguments come to.

    Attributes:
        outputs: the file of each part of the examples that has a share.
        generator: what makes the queries; None where there are no documents to make them of.
        variants: share of the training queries that get a variant, by kind.
        synonyms: for these variants.
        seeds: queries that more are made near.
        needs_model: whether a language model is asked.
        chunk: returns the chunks of documents, and their families.
        requests_for: returns what a language model is asked about passages; options are those of `build_requests`.
    """

    outputs: dict[str, Path]
    generator: str | None
    variants: dict[str, float]
    synonyms: Synonyms | None
    seeds: list[SeedQuery]
    needs_model: bool
    chunk: Callable[[Sequence[Document]], tuple[list[Chunk], Families]]
    requests_for: Callable[..., list[Request]]


def make_plan(args: ScriptArguments) -> Plan:
    """Check the arguments, before a document is read or a request paid for, and return what they come to.

    Raises:
        ValueError, OSError: one cannot work, or has no effect.
    """
    if not (args.input_dir or args.domain or args.feedback_file):
        raise ValueError("nothing to make examples from: give --input-dir, --domain or --feedback-file")
    for name in filter(None, (args.input_dir, args.feedback_file, args.seed_queries)):
        if not Path(name).exists():
            raise FileNotFoundError(f"{name}: no such file or folder")
    outputs = output_files(Path(args.output_file), args.validation_file, args.test_file, args.split)
    report = report_file(outputs["training"])
    written = all_outputs(outputs)
    for file in (*written, report):
        refuse_overwriting(file, args.input_dir, args.feedback_file, args.seed_queries, args.synonyms, args.template)
    if report.resolve() in {file.resolve() for file in written}:
        raise ValueError(f"{report}: the report goes there; name another file for the examples")
    resolve_device(args.device)
    generator = _choose_generator(args) if args.input_dir or args.domain else None
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
    seeds = read_seed_queries(args.seed_queries) if args.seed_queries else []
    requests_for = functools.partial(
        build_requests,
        template=load_template(args.template),
        shares=parse_weights(args.query_types, "query type", QUERY_TYPES),
        queries=args.queries_per_passage,
        negatives=args.contrastive_negatives,
        language=args.language and language_name(args.language),
        seed=args.seed,
    )
    encoder = args.chunking_model if args.chunking == "semantic" else None
    options = {"size": args.chunk_size, "overlap": args.chunk_overlap, "encoder": encoder}
    chunk = functools.partial(chunk_and_group, **options, device=args.device, threads=args.threads)
    needs_model = bool(generator == "openai" or args.domain or "reformulation" in variants)
    plan = Plan(outputs, generator, variants, synonyms, seeds, needs_model, chunk, requests_for)
    if args.dry_run and not needs_model:
        raise ValueError("--dry-run is for what a language model is asked; these settings ask none")
    refuse_idle_flags(args, _flag_needs(args, plan))
    return plan


def _choose_generator(args: ScriptArguments) -> str:
    """Return the generator named, or for `auto`: openai where an endpoint or a domain is given, else extractive."""
    if args.generator != "auto":
        return args.generator
    endpoint = args.api_base or os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")
    generator = "openai" if endpoint or args.domain else "extractive"
    print_line(f"generator   {generator}")
    return generator


def _flag_needs(args: ScriptArguments, plan: Plan) -> tuple[tuple[object, str, str], ...]:
    """Return what flags need beside them, as `refuse_idle_flags` takes it."""
    generator, needs_model = plan.generator, plan.needs_model
    bm25 = args.negatives or args.seed_queries or (args.round_trip and args.round_trip_model == "bm25")
    return (
        (args.domain, "--domain", "bootstrap"),
        (args.split[1], "a second share in --split", "validation_file"),
        (sum(args.split[2:]), "a third share in --split", "test_file"),
        (generator, "--input-dir or --domain",
         "chunk_size chunking generator round_trip balance negatives seed_queries"),
        (generator and args.chunking == "size", "documents and --chunking size", "chunk_overlap"),
        (generator and args.chunking == "semantic", "documents and --chunking semantic", "chunking_model"),
        (generator == "extractive", "documents and --generator extractive", "crops"),
        (generator in ("openai", "seq2seq"), "documents and --generator openai or seq2seq", "queries_per_passage"),
        (generator == "seq2seq", "documents and --generator seq2seq", "seq2seq_model"),
        (generator == "openai", "documents and --generator openai", "query_types template contrastive_negatives"),
        (generator == "openai" or args.domain or bm25,
         "--generator openai, --domain, --seed-queries, or --negatives or --round-trip by BM25", "language"),
        (needs_model, "--generator openai, --domain or --augment reformulation",
         "api_base api_model api_timeout workers requests_per_minute price"),
        (needs_model or generator == "seq2seq", "a model that writes queries or documents", "resume"),
        (args.round_trip, "--round-trip", "round_trip_model"),
        ("synonym" in plan.variants, "--augment synonym", "synonyms"),
    )  # fmt: skip
