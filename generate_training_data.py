"""Make training data from documents: read, chunk, deduplicate, generate queries, filter, split, vary, mine negatives.

    python generate_training_data.py --input-dir ./docs --output-file training_data.json
    python generate_training_data.py --input-dir documents.jsonl --output-file data/train.jsonl --split 90/10 --seed 7
    python generate_training_data.py --input-dir ./docs --api-base http://localhost:11434/v1 --dry-run
    python generate_training_data.py --domain "contract law" --bootstrap 200 --api-model NAME
    python generate_training_data.py --input-dir ./docs --feedback-file feedback.jsonl --augment typo keyword
    python generate_training_data.py --input-dir ./docs --seed-queries errors.jsonl

Input: a folder of documents, one file (README, Files, has the formats), or a collection in the BEIR layout, of which
only the documents are read; a --domain that a language model writes passages about; recorded feedback. Output:
training, validation and test examples, the passages that the queries of the last two search, and data_report.html,
which shows samples of what was made and left out; beside an output of another name than training_data, such as
train.jsonl, train_validation.jsonl, train_validation_corpus.jsonl and train_report.html.
Documents that share a passage always fall into the same of the three, unless so many share it that it is boilerplate,
of which no examples are made.

Queries come from a language model behind an OpenAI-compatible API, where OPENAI_API_KEY is set or --api-base given,
and are cut out of the documents otherwise (--generator extractive). What a model answers is kept in a journal beside
the output as it comes: --resume reuses it, after an interruption or a change of some documents.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import MappingProxyType

from utils.arguments import ScriptArguments, ScriptParser, language_code, number_in_range, positive_int
from utils.console import on_interrupt, print_line, print_skipped, run_script
from utils.documents.chunking import MAX_CHUNK_SIZE, MAX_OVERLAP, MIN_CHUNK_SIZE, MIN_OVERLAP
from utils.documents.families import Families
from utils.documents.reading import read_documents
from utils.documents.repetition import REPEATED
from utils.files import write_text
from utils.journal import JOURNAL_SUFFIX, Journal, lock_journal
from utils.languages import language_name
from utils.records import Chunk, Document, TrainingExample, corpus_file, replace_surrogates
from utils.training_data.augmentation import DEFAULT_SHARE, VARIANT_KINDS, augment_queries
from utils.training_data.bootstrap import typical_passages, write_documents
from utils.training_data.costs import estimate_cost, print_usage
from utils.training_data.data_report import render_data_report
from utils.training_data.extractive import extractive_examples
from utils.training_data.feedback import read_feedback_examples
from utils.training_data.held_out import hold_out
from utils.training_data.language_model import LanguageModel
from utils.training_data.model_queries import NEGATIVE_STRATEGIES, QUERY_TYPES, examples_from_answers, template_names
from utils.training_data.negatives_bm25 import add_bm25_negatives
from utils.training_data.plan import GENERATORS, Plan, make_plan
from utils.training_data.quality import Rejected, cap_per_document, filter_by_round_trip, filter_examples
from utils.training_data.seed_queries import drop_seed_queries, filter_additions, nearest_passages
from utils.training_data.seq2seq import seq2seq_examples
from utils.training_data.splitting import (
    SPLITS,
    explain_shares,
    parse_split,
    print_earlier_parts,
    report_file,
    split_by_document,
    write_parts,
)
from utils.training_data.summary import describe_negatives, rejected_chunks, summarize


def main(args: ScriptArguments) -> None:
    plan = make_plan(args)
    if args.dry_run:
        print_estimate(args, plan)
        return
    output = plan.outputs["training"]
    journal_file = output.with_name(f"{output.name}{JOURNAL_SUFFIX}")
    with open_journal(args, plan, journal_file) as journal:
        limits = args.workers, args.requests_per_minute, args.api_timeout
        model = LanguageModel(args.api_model, journal, args.api_base, *limits) if plan.needs_model else None
        kept = "with --resume the same command keeps what a model has written"
        with on_interrupt(lambda: kept if journal and journal.found else ""):
            generate(args, plan, journal, model)


def generate(args: ScriptArguments, plan: Plan, journal: Journal | None, model: LanguageModel | None) -> None:
    """Read the documents, make the examples, write them and the report, and print the summary.

    Raises:
        ValueError, OSError: nothing can be made of the input, or the language model fails.
    """
    documents, skipped = read_input(args.input_dir)
    if args.domain:
        language = args.language and language_name(args.language)
        written = write_documents(args.domain, args.bootstrap, language, model)
        print_line(f"written     {len(written):,} documents of the {args.bootstrap:,} asked for")
        documents += written
    chunks, families = plan.chunk(documents)
    feedback, skipped_queries = read_feedback_examples(args.feedback_file, chunks) if args.feedback_file else ([], [])
    examples, rejected = make_examples(args, plan, families.passages, journal, model)
    examples += feedback
    rejected += [Rejected("feedback without a liked document", reason, "") for reason in skipped_queries]
    if not examples and args.feedback_file and not documents:
        raise ValueError(f"{args.feedback_file}: no query has a document that was liked")
    if not examples:
        raise ValueError(f"{args.input_dir or args.domain}: no document has enough text of its own for a query")
    metadata = {document.id: document.metadata for document in documents if document.metadata}
    for example in examples:
        if example.source in metadata:
            example.metadata = metadata[example.source]

    parts = dict(zip(SPLITS, split_by_document(examples, args.split, args.seed, families.family_of)))
    shares_note = explain_shares(list(parts.values()), args.split, families.family_of)
    corpora = {}
    for name in SPLITS[1 : len(parts)]:
        parts[name], corpora[name], untestable = hold_out(parts[name], families, args.seed)
        rejected += untestable
    training = parts["training"]
    sources = {example.source for example in training}
    neighbors = [chunk for chunk in families.passages if chunk.document_id in sources]
    seeded = ""
    if plan.seeds:
        training, seeded = add_seeded(args, plan, training, neighbors, families, rejected, journal, model)
        parts["training"] = training
    training += augment_queries(training, plan.variants, args.seed, plan.synonyms, model)
    # The other parts need none: their queries search all passages.
    mined = add_bm25_negatives(training, neighbors, args.negatives, families, args.language)
    if model:
        print_usage(model, args.price)

    write_parts(parts, plan.outputs, corpora)
    print_earlier_parts(plan.outputs)
    summary = summarize(documents, chunks, families, parts, plan.outputs, rejected)
    if args.negatives:
        summary["negatives"] = describe_negatives(mined, training, neighbors, families)
    if seeded:
        summary["seeded"] = seeded
    if shares_note:
        summary["split"] = shares_note
    sizes = [
        f"{len(pool):,} in {corpus_file(plan.outputs[name]).name}" for name, pool in corpora.items() if parts[name]
    ]
    if sizes:
        summary["searched"] = f"passages: {', '.join(sizes)}"
    page = report_file(plan.outputs["training"])
    title = replace_surrogates(args.domain or Path(args.input_dir or args.feedback_file).name)
    unread = [Rejected("repeated text" if REPEATED in reason else "unread file", reason, "") for reason in skipped]
    cases = [*rejected, *rejected_chunks(chunks, families), *unread]
    written_examples = [example for part in parts.values() for example in part]
    write_text(page, render_data_report(title, summary, written_examples, cases, args.seed))
    for name, value in (summary | {"report": str(page)}).items():
        print_line(f"{name:<11} {value}")


def print_estimate(args: ScriptArguments, plan: Plan) -> None:
    """Print about what a language model would be asked, and what that costs."""
    chunks, families = plan.chunk(read_input(args.input_dir)[0])
    passages = families.passages
    near = nearest_passages(plan.seeds, passages, families, args.language) if plan.seeds else {}
    seeded = [chunk for chunk in passages if chunk.id in near]
    if args.domain:
        passages += typical_passages(args.domain, args.bootstrap)
    queries = (len(passages) + len(seeded)) * (
        args.crops + 1 if plan.generator == "extractive" else args.queries_per_passage
    )
    if args.feedback_file:
        queries += len(read_feedback_examples(args.feedback_file, chunks)[0])
    share = plan.variants.get("reformulation", 0)
    asked = [*passages, *seeded]
    requests = [*plan.requests_for(passages), *plan.requests_for(seeded, failing=near)]
    cost = estimate_cost(
        asked,
        requests if plan.generator == "openai" else [],
        args.queries_per_passage,
        args.contrastive_negatives,
        documents=args.bootstrap if args.domain else 0,
        reformulations=round(queries * share * args.split[0] / sum(args.split)),
        price=args.price,
    )
    print_line(f"to ask      about {len(asked):,} passages, {cost}")


def open_journal(args: ScriptArguments, plan: Plan, file: Path) -> AbstractContextManager[Journal | None]:
    """Return the journal that keeps costly answers as they come; where there are none, its place is locked alone."""
    seq2seq = plan.generator == "seq2seq"
    if not plan.needs_model and not seq2seq:
        return lock_journal(file)
    work = f"queries of {args.seq2seq_model}" if seq2seq else "answers of a language model"
    return closing(Journal(file, {"work": work}, args.resume))


def read_input(path: str | None) -> tuple[list[Document], list[str]]:
    """Return the documents, if there are any to read, and why files were not read, which is printed, too."""
    documents, skipped = read_documents(path) if path else ([], [])
    print_skipped(skipped)
    return documents, skipped


def make_examples(
    args: ScriptArguments, plan: Plan, passages: list[Chunk], journal: Journal | None, model: LanguageModel | None
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Return the examples of the passages that pass the filters, and what was rejected."""
    examples, unanswered = generate_queries(args, plan, passages, journal, model, args.seed)
    examples, rejected = filter_examples(examples)
    rejected += unanswered
    if args.round_trip:
        settings = args.round_trip, args.round_trip_model, args.device, args.threads, args.language
        examples, lost = filter_by_round_trip(examples, passages, *settings)
        rejected += lost
    if args.balance:
        examples, beyond = cap_per_document(examples, args.balance, args.seed)
        rejected += beyond
    return examples, rejected


def generate_queries(
    args: ScriptArguments,
    plan: Plan,
    passages: list[Chunk],
    journal: Journal | None,
    model: LanguageModel | None,
    seed: int,
    failing: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[list[TrainingExample], list[Rejected]]:
    """Return the queries that the generator makes for passages, and what it leaves out; `failing` are queries that a
    language model is shown, by the passage's id."""
    if plan.generator == "openai" and passages:
        requests = plan.requests_for(passages, seed=seed, failing=failing)
        return examples_from_answers(passages, model.complete(requests))
    if plan.generator == "seq2seq" and passages:
        settings = args.seq2seq_model, args.queries_per_passage, seed, journal, args.device, args.threads
        return seq2seq_examples(passages, *settings), []
    return list(extractive_examples(passages, args.crops, seed)), []


def add_seeded(
    args: ScriptArguments,
    plan: Plan,
    training: list[TrainingExample],
    passages: list[Chunk],
    families: Families,
    rejected: list[Rejected],
    journal: Journal | None,
    model: LanguageModel | None,
) -> tuple[list[TrainingExample], str]:
    """Return the training examples with more of the passages nearest to the seed queries, and a line that says so; what
    is left out is added to `rejected`. The other parts of the split stay as they are."""
    near = nearest_passages(plan.seeds, passages, families, args.language)
    chosen = [chunk for chunk in passages if chunk.id in near]
    additions, unanswered = generate_queries(args, plan, chosen, journal, model, args.seed + 1, near)
    additions, failed = filter_additions(training, additions)
    rejected += [*unanswered, *failed]
    if args.round_trip and additions:
        settings = args.round_trip, args.round_trip_model, args.device, args.threads, args.language
        additions, lost = filter_by_round_trip(additions, families.passages, *settings)
        rejected += lost
    kept, same = drop_seed_queries([*training, *additions], plan.seeds)
    rejected += same
    if args.balance:
        kept, beyond = cap_per_document(kept, args.balance, args.seed)
        rejected += beyond
    line = f"{len(additions):,} more training examples of {len(chosen):,} passages near {len(plan.seeds):,} queries"
    if same:
        line += f", {len(same):,} left out that say what these say"
    judged = {document for seed in plan.seeds for document in seed.judged}
    if unknown := judged - families.family_of.keys():
        line += f"; {len(unknown):,} of {len(judged):,} judged documents are not among the documents"
    return kept, line


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    add = parser.add_argument_group("input").add_argument
    add("--input-dir", default=None, metavar="PATH", help="folder or file of documents")
    add("--domain", default=None, metavar="NAME", help="what a language model writes documents about, for lack of them")
    add("--bootstrap", type=positive_int, default=100, metavar="N", help="documents to write about the domain")
    add("--feedback-file", default=None, metavar="FILE", help="recorded judgments of search results, JSON Lines")
    seeds = "queries that fail, as test_evaluate.py --export-errors writes them: more are made near them"
    add("--seed-queries", default=None, metavar="FILE", help=seeds)
    language = "of the texts, such as de or german, for openai's queries and BM25; default: what each passage is in"
    add("--language", type=language_code, default=None, help=language)

    add = parser.add_argument_group("output").add_argument
    add("--output-file", default="training_data.json", metavar="FILE", help="training examples, .json or .jsonl")
    add("--validation-file", default=None, metavar="FILE", help="default: beside the output file, see above")
    add("--test-file", default=None, metavar="FILE", help="default: beside the output file, see above")
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

    add = parser.add_argument_group("language model (openai)").add_argument
    add("--api-base", default=None, metavar="URL", help="the endpoint; default: OPENAI_BASE_URL, or OpenAI's")
    add("--api-model", default=None, metavar="NAME", help="the model; default: the only one at the endpoint")
    seconds = number_in_range(float, 1, 86_400)
    add("--api-timeout", type=seconds, default=120, metavar="SECONDS", help="time to wait for an answer")
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
    negatives = "hard negatives per training example, mined with BM25"
    add("--negatives", type=number_in_range(int, 0), default=0, help=negatives)
    add("--contrastive-negatives", type=number_in_range(int, 0, len(NEGATIVE_STRATEGIES)), default=1, metavar="N",
        help="openai: passages to write that do not answer")  # fmt: skip
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
