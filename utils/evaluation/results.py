"""What several systems found on one collection, side by side: tables, comparisons, and files for other tools."""

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.evaluation.collection import Collection
from utils.evaluation.comparison import Comparison, compare
from utils.evaluation.groups import Grouping, GroupRow, compare_groups
from utils.evaluation.systems import Evaluation
from utils.evaluation.trec import write_qrels, write_run
from utils.files import open_atomic

COSTS = ("doc_terms", "query_terms", "query_latency_ms")  # columns of the table, after the metrics


class Results(NamedTuple):
    """What systems found on a collection.

    Attributes:
        name: of the collection, as the user named it.
        data: the collection.
        evaluations: of each system.
        metric: by which they are compared.
        comparisons: of the systems that are judged with all those before them.
        groups: rows of groups of queries, by what they are grouped by.
    """

    name: str
    data: Collection
    evaluations: list[Evaluation]
    metric: str
    comparisons: list[Comparison]
    groups: dict[str, list[GroupRow]]

    def table(self) -> list[dict[str, Any]]:
        """Return the rows of the table: the metrics, and what a system costs, its latency as the median; "" for what is
        not known."""
        rows = []
        for evaluation in self.evaluations:
            row = evaluation.row()
            costs = {name: row.get(name, "") for name in COSTS}
            costs["query_latency_ms"] = costs["query_latency_ms"]["p50"] if costs["query_latency_ms"] else ""
            rows.append({"model": evaluation.system, **evaluation.means, **costs})
        return rows

    def report(self) -> dict[str, Any]:
        """Return all figures, for a file: those of the last system, beside them those of the others, `compared`."""
        rows = [evaluation.row() for evaluation in self.evaluations]
        sizes = {"queries": len(self.data.qrels)}
        if self.data.documents:
            sizes["documents"] = len(self.data.documents)
        figures = {**rows[-1], **sizes} | ({"compared": rows[:-1]} if rows[:-1] else {})
        figures |= {"comparisons": [pair.row() for pair in self.comparisons]} if self.comparisons else {}
        groups = {
            name: [row._asdict() | ({"difference": row.difference._asdict()} if row.difference else {}) for row in rows]
            for name, rows in self.groups.items()
        }
        return figures | {"groups": groups}


def gather_results(
    name: str,
    data: Collection,
    evaluations: Sequence[Evaluation],
    metric: str,
    groupings: dict[str, Grouping],
    first: int = 1,
) -> Results:
    """Return the evaluations of systems with what they show together, for groups of queries too (`group_queries`), and
    with comparisons of those from place `first` on (`compare`)."""
    evaluations = list(_number_names(evaluations))
    groups = {kind: compare_groups(grouping, data, evaluations, metric) for kind, grouping in groupings.items()}
    return Results(name, data, list(evaluations), metric, compare(evaluations, metric, first), groups)


def _number_names(evaluations: Sequence[Evaluation]) -> Iterator[Evaluation]:
    """Yield the evaluations, the second and further ones of a name with a number."""
    seen: Counter[str] = Counter()
    for evaluation in evaluations:
        seen[evaluation.system] += 1
        count = seen[evaluation.system]
        yield evaluation if count == 1 else evaluation._replace(system=f"{evaluation.system} ({count})")


def write_trec_files(folder: str | Path, results: Results) -> None:
    """Write, for other tools, each system's run and the judgments in TREC's layouts, and values.csv: a line a query and
    system with the value of each metric."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_qrels(folder / "qrels.txt", results.data.qrels)
    for name, evaluation in zip(_file_names(results.evaluations), results.evaluations):
        write_run(folder / f"{name}.run", evaluation.system, evaluation.run)
    with open_atomic(folder / "values.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        metrics = list(results.evaluations[0].means)
        writer.writerow(["query_id", "system", *metrics, "query"])
        for place, query in enumerate(results.data.qrels):
            for evaluation in results.evaluations:
                values = [float(evaluation.values[metric][place]) for metric in metrics]
                writer.writerow([query, evaluation.system, *values, results.data.queries[query]])


def is_trec_file(path: str | Path, folder: str | Path | None) -> bool:
    """Return whether `write_trec_files` may write a file at this path, if it is given the folder."""
    path = Path(path)
    named = path.suffix == ".run" or path.name in ("qrels.txt", "values.csv")
    return bool(folder) and named and path.resolve().parent == Path(folder).resolve()


def _file_names(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Yield a name for each system's file, of letters that every file system takes, none twice."""
    taken: set[str] = set()
    for evaluation in evaluations:
        plain = re.sub(r"[^\w.-]+", "_", evaluation.system).strip("_.") or "system"
        name = next(name for name in (plain, *(f"{plain}_{i}" for i in range(2, 1000))) if name.lower() not in taken)
        taken.add(name.lower())
        yield name
