"""Retrieval metrics over a run, by ir-measures."""

from collections.abc import Sequence

import ir_measures
import numpy as np

METRICS = ("nDCG@10", "RR@10", "P@5", "R@100")
DEPTH = 100  # documents retrieved for a query; as deep as the deepest metric looks


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises ValueError for a name that ir-measures does not know, or that looks deeper than a run goes."""
    for name in metrics:
        try:
            measure = ir_measures.parse_measure(name)
        except (ValueError, NameError) as error:
            raise ValueError(f"unknown metric '{name}': use names such as {' '.join(METRICS)}") from error
        if measure.params.get("cutoff", 0) > DEPTH:
            raise ValueError(f"metric '{name}' looks deeper than the {DEPTH} documents retrieved for a query")


def evaluate_run(
    qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], metrics: Sequence[str] = METRICS
) -> dict[str, float]:
    """Means over the judged queries; a query without a result counts as 0.

    Args:
        qrels: qrels[query id][document id] is the grade.
        run: run[query id][document id] is the score.
        metrics: names as ir-measures spells them.
    """
    measures = [ir_measures.parse_measure(name) for name in metrics]
    complete = {query: run.get(query, {}) for query in qrels}
    totals = ir_measures.calc_aggregate(measures, qrels, complete)
    return {name: float(totals[measure]) for name, measure in zip(metrics, measures)}


def latency_percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """The median and the two slow ends, in ms."""
    return {f"p{p}": round(float(np.percentile(milliseconds, p)), 3) for p in (50, 95, 99)}
