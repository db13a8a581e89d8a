"""What an error analysis comes to: lines to read, and candidates for training data."""

from collections.abc import Sequence
from pathlib import Path

from utils.evaluation.collection import Collection
from utils.evaluation.errors import ErrorAnalysis, JudgedDocument, QueryError
from utils.evaluation.systems import Evaluation
from utils.records import SeedQuery, write_examples

COSTLY_WORDS = 15  # that are shown
LEADING_TERMS = 5  # of an error and of a document that are shown


def describe_errors(analysis: ErrorAnalysis, systems: Sequence[Evaluation], metric: str, count: int) -> str:
    """Return, as lines, how many queries the last system loses against the first, or against what is possible where it
    is alone, why, which terms cost most, and the `count` queries that lost most."""
    against = systems[0].system if len(systems) > 1 else "what is possible"
    queries = len(systems[-1].values[metric])
    lines = [f"\n{systems[-1].system}: {len(analysis.errors):,} of {queries:,} queries are below {against} by {metric}"]
    if analysis.errors:
        lines.append("causes: " + ", ".join(f"{cause} {number:,}" for cause, number in analysis.causes.items()))
    if analysis.words:
        words = (f"{word} {cost:.1f}" for word, cost in analysis.words[:COSTLY_WORDS])
        lines.append(f"what puts wrong passages ahead, in units of the score: {', '.join(words)}")
    for number, error in enumerate(analysis.errors[:count], 1):
        lines += [f"\n{number}. {' '.join(error.query.split())}", *_describe(error, against, metric)]
    return "\n".join(lines)


def _describe(error: QueryError, against: str, metric: str) -> list[str]:
    values = f"{metric} {error.value:.3f}, {against} {error.baseline_value:.3f}"
    lines = [f"   query {error.query_id}: {values}", f"   {error.cause}: {error.explanation}"]
    for side, document in (("right", error.right), ("wrong", error.wrong)):
        if document:
            lines += _describe_document(side, document)
    if error.lead:
        lines.append("   ahead by " + ", ".join(f"{term} {part:.2f}" for term, part in error.lead[:LEADING_TERMS]))
    return lines


def _describe_document(side: str, document: JudgedDocument) -> list[str]:
    rank = f"rank {document.rank}" if document.rank else "beyond the first hits"
    terms = (f"{row['term']} {row['in query']:.2f} x {row['in passage']:.2f}" for row in document.terms[:LEADING_TERMS])
    return [
        f"   {side} {document.id}, {rank}, score {document.score:.2f}: {document.snippet}",
        f"         {', '.join(terms) or 'no shared terms'}",
    ]


def write_seeds(path: str | Path, analysis: ErrorAnalysis, data: Collection, metric: str) -> None:
    """Write the lost queries, with the ids of all documents that are judged for them, as SeedQuery: a JSON list or, by
    `.jsonl`, JSON Lines. There is no judged text among it, so that nothing can be trained on it as it is."""
    seeds = [
        SeedQuery(
            query=error.query,
            judged=list(data.qrels[error.query_id]),
            query_id=error.query_id,
            metric=metric,
            value=error.value,
            baseline_value=error.baseline_value,
            cause=error.cause,
            explanation=error.explanation,
            words=[term for term, _ in error.lead],
            right=error.right and error.right.id,
            wrong=error.wrong and error.wrong.id,
        )
        for error in analysis.errors
    ]
    write_examples(path, seeds)
