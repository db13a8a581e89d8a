"""Make training data from documents: load, chunk, drop copies, ask queries, mine hard negatives, split.

    python generate_training_data.py --input-dir ./docs --output-file training_data.json
    python generate_training_data.py --input-dir documents.jsonl --output-file data/train.jsonl --negatives 2 --seed 7
    python generate_training_data.py --input-dir ./docs --api-base http://localhost:11434/v1 --dry-run

Hard negatives are off by default: on Cranfield one from BM25's ranks 31 to 100 changed nDCG@10 by 0.000 beside the
batch's own documents, and training took 1.8 times as long. `--negatives N` mines them.

Input: a folder of .md .txt .rst .html .pdf .docx .json .jsonl files, one such file, or a collection in the BEIR layout,
of which only the documents are read. Output: training examples, and validation examples beside them. A document and
those that share a passage with it stand on one side.

Queries come from a language model behind an OpenAI-compatible API, where OPENAI_API_KEY is set or --api-base given,
and are cut out of the documents otherwise (--generator extractive). What a model answers is kept in a journal beside
the output as it comes: --resume asks nothing twice, after an interrupt as after a change of some documents.
"""

import argparse
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from utils.chunking import MAX_OVERLAP, MAX_SIZE, MIN_OVERLAP, MIN_SIZE, chunk_documents
from utils.console import Parser, bounded, positive_int, run_script, say, say_skipped
from utils.documents import read_documents
from utils.duplicates import Likeness
from utils.journal import Journal
from utils.language_model import LanguageModel
from utils.model_queries import (
    QUERY_TYPES,
    STRATEGIES,
    Written,
    estimate,
    load_template,
    model_examples,
    parse_shares,
    questions,
    templates,
)
from utils.negatives import add_bm25_negatives
from utils.query_generation import extractive_examples
from utils.records import Chunk, TrainingExample, check_writable, write_examples

GENERATORS = ("auto", "openai", "extractive")


def split_by_document(
    examples: Sequence[TrainingExample], val_ratio: float, seed: int, likeness: Likeness | None = None
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """(training, validation) examples: `val_ratio` of the documents, at least one, go to validation, related documents
    together. With a single document, or a ratio of 0, validation is empty."""
    families: dict[str, list[str]] = {}
    for source in sorted({example.source for example in examples}):
        families.setdefault(likeness.family(source) if likeness else source, []).append(source)
    order = list(families.values())
    random.Random(seed).shuffle(order)
    count = max(1, round(sum(map(len, order)) * val_ratio)) if val_ratio else 0
    held_out: set[str] = set()
    for family in order[1:]:
        if len(held_out) < count:
            held_out.update(family)
    training = [example for example in examples if example.source not in held_out]
    return training, [example for example in examples if example.source in held_out]


def ask_language_model(args: argparse.Namespace, passages: Sequence[Chunk]) -> list[TrainingExample]:
    """The examples that the model at --api-base writes; none with --dry-run, which only says what they would take.

    Raises:
        ValueError: the endpoint, the template or the journal cannot be used.
    """
    output = Path(args.output_file)
    shares = parse_shares(args.query_types)
    wanted = args.queries_per_passage, args.contrastive_negatives
    asked = questions(passages, load_template(args.template), shares, *wanted, args.language, args.seed)
    read, written = estimate(asked, *wanted, passages)
    say(f"to ask      {len(asked):,} passages, about {_tokens(args, read, written)}")
    if args.dry_run:
        return []
    journal = Journal(output.with_name(f"{output.name}.journal"), {"work": "answers of a language model"}, args.resume)
    model = LanguageModel(
        args.api_model, Written, journal, args.api_base, args.workers, args.requests_per_minute, args.api_timeout
    )
    answers = model.answers(asked)
    failed = Counter(reason for entry in model.entries for reason in entry["failed"])
    read, written = (sum(entry[name] for entry in model.entries) for name in ("read", "written"))
    say(f"asked       {len(model.entries):,} passages of {model.model}: {_tokens(args, read, written)}")
    unusable = ", ".join(f"{count:,} {reason}" for reason, count in failed.most_common()) or "none"
    say(f"unusable    {unusable}; {sum(answer is None for answer in answers):,} passages without queries")
    if model.unanswered:
        say(f"unanswered  {model.unanswered:,} requests; --resume asks them again")
    return model_examples(passages, answers)


def _tokens(args: argparse.Namespace, read: int, written: int) -> str:
    """Numbers of tokens and, with --price, which is for a million of them, what they cost."""
    cost = f": {(read * args.price[0] + written * args.price[1]) / 1e6:,.2f}" if args.price else ""
    return f"{read:,} tokens to read, {written:,} to write{cost}"


def main(args: argparse.Namespace) -> None:
    output = Path(args.output_file)
    validation_file = Path(args.validation_file or output.with_name("validation_data" + output.suffix))
    if output.resolve() == validation_file.resolve():
        raise ValueError(f"{output}: training and validation examples cannot go to the same file")
    for file in (output, validation_file):
        check_writable(file)

    documents, skipped = read_documents(args.input_dir)
    say_skipped(skipped)
    chunks = chunk_documents(documents, args.chunk_size, args.chunk_overlap)
    likeness = Likeness()
    passages = [chunk for chunk in chunks if likeness.add(chunk.id, chunk.text, family=chunk.document_id)]
    generator = args.generator
    if generator == "auto":
        generator = "openai" if args.api_base or os.environ.get("OPENAI_API_KEY") else "extractive"
        say(f"generator   {generator}")
    if args.dry_run and generator != "openai":
        raise ValueError("--dry-run is for --generator openai; extractive costs nothing")
    if generator == "openai":
        examples = ask_language_model(args, passages)
        if args.dry_run:
            return
    else:
        examples = list(extractive_examples(passages, args.crops, args.seed))
    if not examples:
        raise ValueError(f"{args.input_dir}: no document has enough text to make a query from")
    training, validation = split_by_document(examples, args.val_ratio, args.seed, likeness)
    for part in (training, validation):
        sources = {example.source for example in part}
        add_bm25_negatives(part, [c for c in passages if c.document_id in sources], args.negatives)

    write_examples(output, training)
    write_examples(validation_file, validation)
    empty = len(documents) - len({chunk.document_id for chunk in chunks})
    types = Counter(example.query_type for example in examples)
    say(f"documents   {len(documents):,} ({empty:,} empty), {len(skipped):,} files skipped")
    say(f"passages    {len(passages):,}; {len(chunks) - len(passages):,} more are copies of one of them")
    say(f"examples    {len(examples):,}: " + ", ".join(f"{kind} {count:,}" for kind, count in types.most_common()))
    say(f"training    {len(training):,} -> {output}")
    say(f"validation  {len(validation):,} -> {validation_file}")


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--input-dir", required=True, metavar="PATH", help="folder or file of documents")
    add("--output-file", default="training_data.json", metavar="FILE", help="training examples, .json or .jsonl")
    add("--validation-file", default=None, metavar="FILE", help="default: validation_data beside the output file")
    add("--val-ratio", type=bounded(float, 0, 0.9), default=0.1, help="share of the documents held out")
    add("--generator", choices=GENERATORS, default="auto", help="what makes the queries; auto: openai with a key or "
        "--api-base, else extractive")  # fmt: skip
    add(
        "--crops",
        type=bounded(int, 0),
        default=3,
        help="extractive: sentences and passages cut from a chunk as queries",
    )
    add("--api-base", default=None, metavar="URL", help="openai: the endpoint; default: OPENAI_BASE_URL, or OpenAI's")
    add("--api-model", default=None, metavar="NAME", help="openai: the model; default: the only one at the endpoint")
    add("--api-timeout", type=bounded(float, 1), default=120, metavar="SECONDS", help="openai: for an answer")
    add("--workers", type=positive_int, default=8, help="openai: requests at a time")
    add("--requests-per-minute", type=bounded(float, 0.01), default=None, metavar="N", help="openai: at most")
    add("--queries-per-passage", type=positive_int, default=3, help="openai: queries to write for a passage")
    add("--query-types", nargs="+", default=list(QUERY_TYPES), metavar="TYPE[=SHARE]",
        help="openai: kinds of queries, and how many of each in proportion")  # fmt: skip
    add("--contrastive-negatives", type=bounded(int, 0, len(STRATEGIES)), default=1, metavar="N",
        help="openai: passages to write that do not answer")  # fmt: skip
    add(
        "--template",
        default="generic",
        metavar="NAME",
        help="openai: prompt, a file or one of " + ", ".join(templates()),
    )
    add("--language", default=None, help="openai: of the queries; default: that of each passage")
    add("--price", type=bounded(float, 0), nargs=2, default=None, metavar=("READ", "WRITTEN"),
        help="openai: of a million tokens, for the summary")  # fmt: skip
    add("--dry-run", action="store_true", help="openai: only say what would be asked")
    add("--resume", action="store_true", help="openai: go on with the journal that is there")
    add("--negatives", type=bounded(int, 0), default=0, help="hard negatives an example, mined with BM25")
    add("--chunk-size", type=bounded(int, MIN_SIZE, MAX_SIZE), default=MAX_SIZE, help="characters a chunk at most")
    add("--chunk-overlap", type=bounded(float, MIN_OVERLAP, MAX_OVERLAP), default=0.15, help="share of a chunk")
    add("--seed", type=int, default=42, help="seed of the random choices")
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
