"""What the figures of an evaluation come to, in sentences: is it better, for whom is it worse, what does it cost, what
to do next."""

from collections.abc import Sequence
from typing import NamedTuple

from utils.evaluation.comparison import Comparison
from utils.evaluation.groups import GroupRow
from utils.evaluation.results import Results
from utils.evaluation.systems import Evaluation


class Answer(NamedTuple):
    """A question, and the sentences that answer it."""

    question: str
    answers: list[str]


def find_answers(everything: Sequence[Results], causes: dict[str, int]) -> list[Answer]:
    """Return what is to be said of the last system, beside the first one.

    Args:
        everything: of the test data first, then of other collections.
        causes: number of errors by cause; none where they were not looked into.
    """
    results = everything[0]
    return [
        Answer("Is it better?", [f"{pair}." for pair in last_comparisons(results)] or [_alone(results)]),
        Answer("For whom is it worse?", _worse(everything)),
        Answer("What does it cost?", [_describe_costs(system) for system in results.evaluations]),
        Answer("What to do next?", _next_steps(results, causes)),
    ]


def last_comparisons(results: Results) -> list[Comparison]:
    """Return the comparisons of the last system with each of those before it, in their order."""
    return results.comparisons[len(results.comparisons) - len(results.evaluations) + 1 :]


def worse_groups(results: Results) -> list[tuple[str, GroupRow]]:
    """Return the groups on which the last system is below the first by more than chance, the worst first, each with
    what it is grouped by."""
    rows = [(name, row) for name, rows in results.groups.items() for row in rows if row.sure]
    return sorted((pair for pair in rows if pair[1].difference.mean < 0), key=lambda pair: pair[1].difference.mean)


def _alone(results: Results) -> str:
    (system,) = results.evaluations
    return f"{system.system} has {results.metric} {system.means[results.metric]:.3f}; no other to compare it with."


def _worse(everything: Sequence[Results]) -> list[str]:
    results = everything[0]
    if len(results.evaluations) < 2:
        return ["That takes a second system."]
    first, last = results.evaluations[0].system, results.evaluations[-1].system
    found = worse_groups(results)
    sentences = [
        f"{last} is below {first} by {name}, {row.group}: {row.difference}, {row.queries:,} queries."
        for name, row in found
    ]
    count = sum(len(rows) for rows in results.groups.values())
    if not found:
        sentences.append(f"In none of the {count:,} groups of queries is {last} below {first} by more than chance.")
    elif count > 1:
        sentences.append(f"Each group is tested by itself; of {count:,}, one in forty is found worse by chance.")
    for other in everything[1:]:
        sentences += [f"On {other.name}: {pair}." for pair in last_comparisons(other) if pair.verdict == "worse"]
    return sentences


def _describe_costs(evaluation: Evaluation) -> str:
    row, parts = evaluation.row(), []
    if "doc_terms" in row:
        parts.append(f"{row['doc_terms']:,.0f} terms a document and {row['query_terms']:,.0f} a query")
    if latency := row.get("query_latency_ms"):
        parts.append(f"{latency['p50']:.3g} ms a query at the median, {latency['p99']:.3g} at p99")
    if "index_bytes" in row:
        parts.append(f"an index of {format_bytes(row['index_bytes'])}")
    return f"{evaluation.system}: {'; '.join(parts) or 'not known'}."


def _next_steps(results: Results, causes: dict[str, int]) -> list[str]:
    if not results.comparisons:
        return ["Compare it: --baseline bm25, or --compare with the untuned model."]
    pair, steps = last_comparisons(results)[0], []
    if pair.verdict == "better":
        steps.append(f"Use {pair.system}, if it is worth what it costs.")
    elif pair.verdict == "worse":
        steps.append(f"Keep {pair.baseline}.")
    elif pair.needed:
        steps.append(f"Judge more queries, about {pair.needed:,} in all, or choose by what the two cost.")
    else:
        steps.append(f"Choose between {pair.system} and {pair.baseline} by what they cost.")
    if causes:
        cause, count = max(causes.items(), key=lambda item: item[1])
        steps.append(f"Begin with the most frequent cause of errors: {cause}, {count:,} of {sum(causes.values()):,}.")
    if found := worse_groups(results):
        name, row = found[0]
        steps.append(f"Train on more queries like those of the weakest group: {name}, {row.group}.")
    return steps


def format_bytes(count: int) -> str:
    """Return a size in the largest decimal unit that it has one of."""
    size, units = float(count), iter(("bytes", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:,.0f} bytes" if unit == "bytes" else f"{size:,.1f} {unit}"
