"""HTML report of an evaluation: what to make of it, tables, plots, and the queries that tell the most."""

import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from utils.evaluation.answers import find_answers, format_bytes, last_comparisons
from utils.evaluation.errors import ErrorAnalysis, JudgedDocument, QueryError
from utils.evaluation.plots import Plot, draw_differences, draw_groups, draw_latencies, draw_quality_against_costs
from utils.evaluation.results import Results
from utils.evaluation.significance import paired_differences
from utils.evaluation.systems import PERCENTILES, Evaluation
from utils.files import replacing_files, write_text
from utils.html_page import render_page

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
QUERIES_SHOWN = 20  # of the worst, and of the best
HITS_SHOWN = 3
ERRORS_SHOWN = 50
WORDS_SHOWN = 30
GROUPS_DRAWN = 24  # of one kind, from the first on; the table has all
QUERY_LETTERS, TEXT_LETTERS, NAME_LETTERS = 300, 240, 80  # of a query, of a document, of an id or a group
UNKNOWN = "-"
PLOT_FILES = ("differences.png", "quality.png", "latency.png", "groups_*.png")
LATENCIES = {"encode": "encode", "search": "search", "query": "both"}

Row = dict[str, str]  # cells of a table by the names of its columns


class ShownHit(NamedTuple):
    """A document that a system found: its id, how it begins, and how it was judged."""

    id: str
    text: str
    judgment: str


class ShownQuery(NamedTuple):
    """A query, the first and the last system's values and what they found first."""

    id: str
    text: str
    values: tuple[float, float]
    hits: tuple[list[ShownHit], list[ShownHit]]


def write_report(path: str | Path, everything: Sequence[Results], errors: ErrorAnalysis | None = None) -> None:
    """Write a report as one HTML file that loads nothing, and its plots as PNG files into a folder beside it, whose
    name is the file's with `_plots` (`plots_folder`).

    Args:
        everything: results on the test data first, then on other collections.
        errors: of the last system on the test data.

    Raises:
        OSError: they cannot be written.
    """
    path = Path(path)
    results, *others = [_cut_group_names(results) for results in everything]
    compared = len(results.evaluations) > 1
    groups = [
        draw_groups(number, name, rows[:GROUPS_DRAWN], results.metric) if compared else None
        for number, (name, rows) in enumerate(results.groups.items(), 1)
    ]
    differences = draw_differences(results) if compared else None
    quality, latency = draw_quality_against_costs(results), draw_latencies(results)
    worst, best = _telling_queries(results) if compared else ([], [])
    page = render_page(
        TEMPLATE,
        "test_evaluate.py",
        results=results,
        date=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        answers=find_answers([results, *others], errors.causes if errors else {}),
        systems=[_quality_row(system) for system in results.evaluations],
        costs=[_cost_row(system) for system in results.evaluations],
        comparisons=_comparison_rows(results),
        differences=differences,
        worst=worst,
        best=best,
        groups=[(name, plot, _group_rows(results, name)) for name, plot in zip(results.groups, groups)],
        groups_drawn=GROUPS_DRAWN,
        quality=quality,
        latency=latency,
        others=[(other, [_quality_row(s) for s in other.evaluations], last_comparisons(other)) for other in others],
        errors=errors,
        errors_shown=[_shorten_error(error) for error in errors.errors[:ERRORS_SHOWN]] if errors else [],
        causes=[{"cause": name, "errors": f"{count:,}"} for name, count in errors.causes.items()] if errors else [],
        words=errors.words[:WORDS_SHOWN] if errors else [],
        mark_terms=_mark_terms,
    )
    plots: list[Plot | None] = [differences, quality, latency, *groups]
    with replacing_files(plots_folder(path), stale=PLOT_FILES) as folder:
        for plot in filter(None, plots):
            (folder / f"{plot.name}.png").write_bytes(plot.png)
    write_text(path, page)


def plots_folder(path: str | Path) -> Path:
    """Return the folder of a report's plots."""
    return Path(path).with_name(f"{Path(path).stem}_plots")


def _cut_group_names(results: Results) -> Results:
    """Return results in which no name of a group is long."""
    groups = {
        _cut(name, NAME_LETTERS): [row._replace(group=_cut(row.group, NAME_LETTERS)) for row in rows]
        for name, rows in results.groups.items()
    }
    return results._replace(groups=groups)


def _quality_row(system: Evaluation) -> Row:
    costs = system.costs
    return {
        "system": system.system,
        **{metric: _format(value) for metric, value in system.means.items()},
        "terms a document": _format(costs.doc_terms),
        "terms a query": _format(costs.query_terms),
        "FLOPS": _format(costs.flops),
        "index": UNKNOWN if costs.index_bytes is None else format_bytes(costs.index_bytes),
    }


def _cost_row(system: Evaluation) -> Row:
    row, cells = system.row(), {"system": system.system}
    for name, shown in LATENCIES.items():
        latency = row.get(f"{name}_latency_ms", {})
        for percentile in (f"p{p}" for p in PERCENTILES):
            cells[f"{shown} {percentile}"] = f"{latency[percentile]:,.2f}" if latency else UNKNOWN
    cells["queries/s"] = _format(row.get("queries_per_second"))
    return cells | {"documents/s, indexed": _format(row.get("documents_per_second"))}


def _comparison_rows(results: Results) -> list[Row]:
    return [
        {
            "system": pair.system,
            "over": pair.baseline,
            "difference (95 % interval)": str(pair.difference),
            "p (Holm)": "< 0.001" if pair.adjusted_p < 0.001 else f"{pair.adjusted_p:.3f}",
            "effect size": "-" if pair.effect is None else f"{pair.effect:+.2f}",
            "won": f"{pair.wins:,}",
            "tied": f"{pair.ties:,}",
            "lost": f"{pair.losses:,}",
            "verdict": pair.verdict,
            "queries needed": f"{pair.needed:,}" if pair.needed else UNKNOWN,
        }
        for pair in results.comparisons
    ]


def _group_rows(results: Results, name: str) -> list[Row]:
    names = [system.system for system in results.evaluations]
    return [
        {"group": row.group, "queries": f"{row.queries:,}"}
        | {system: _format(mean) for system, mean in zip(names, row.means)}
        | ({"difference (95 % interval)": str(row.difference)} if row.difference else {})
        for row in results.groups[name]
    ]


def _telling_queries(results: Results) -> tuple[list[ShownQuery], list[ShownQuery]]:
    """Return the queries on which the last system is most below the first, and those on which it is most above."""
    first, last = results.evaluations[0], results.evaluations[-1]
    values = first.values[results.metric], last.values[results.metric]
    differences = paired_differences(values[1], values[0])
    order = np.argsort(differences, kind="stable").tolist()
    worst = [place for place in order[:QUERIES_SHOWN] if differences[place] < 0]
    best = [place for place in order[::-1][:QUERIES_SHOWN] if differences[place] > 0]
    queries, texts = list(results.data.qrels), {document.id: document for document in results.data.documents}

    def hits(system: Evaluation, query: str) -> Iterator[ShownHit]:
        for name in list(system.run.get(query, {}))[:HITS_SHOWN]:
            text = texts[name].title or texts[name].text if name in texts else ""
            yield ShownHit(_cut(name, NAME_LETTERS), _cut(text, TEXT_LETTERS), _judgment(results, query, name))

    def show(place: int) -> ShownQuery:
        query = queries[place]
        both = float(values[0][place]), float(values[1][place])
        text = _cut(results.data.queries.get(query, ""), QUERY_LETTERS)
        return ShownQuery(_cut(query, NAME_LETTERS), text, both, (list(hits(first, query)), list(hits(last, query))))

    return [show(place) for place in worst], [show(place) for place in best]


def _judgment(results: Results, query: str, document: str) -> str:
    grade = results.data.qrels[query].get(document)
    if grade is None:
        return "not judged"
    return f"relevant, {grade}" if grade > 0 else "not relevant"


def _shorten_error(error: QueryError) -> QueryError:
    """Return an error with its texts cut to what the page shows."""

    def shorten(document: JudgedDocument | None) -> JudgedDocument | None:
        return document and document._replace(
            id=_cut(document.id, NAME_LETTERS),
            title=_cut(document.title, TEXT_LETTERS),
            snippet=_cut(document.snippet, TEXT_LETTERS),
        )

    return error._replace(
        query_id=_cut(error.query_id, NAME_LETTERS),
        query=_cut(error.query, QUERY_LETTERS),
        right=shorten(error.right),
        wrong=shorten(error.wrong),
    )


def _mark_terms(text: str, terms: Sequence[dict[str, Any]]) -> Markup:
    """Return an escaped text in which the words are marked that are terms of it, or end with one that is a piece of a
    word; in another way those that the query does not have itself."""
    kinds = {row["term"].lower(): "query" in row["expansion of"] for row in terms}
    pieces = {term.removeprefix("##"): expanded for term, expanded in kinds.items() if term.startswith("##")}
    marked = []
    for place, part in enumerate(re.split(r"(\w+)", text)):
        word = part.lower()
        found = [kinds[word]] if word in kinds else [pieces[end] for end in pieces if word.endswith(end)]
        if place % 2 and found:
            tag = '<mark class="expansion">{}</mark>' if all(found) else "<mark>{}</mark>"
            marked.append(Markup(tag).format(part))
        else:
            marked.append(Markup("{}").format(part))
    return Markup("").join(marked)


def _format(value: float | None) -> str:
    """Return a figure as a cell, UNKNOWN for none."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.4f}" if abs(value) < 2 else f"{value:,.1f}"


def _cut(text: str, letters: int) -> str:
    """Return a text on one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= letters else f"{line[: letters - 3]}..."
