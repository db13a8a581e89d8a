"""How good a run is: metrics by ir-measures, over all queries and query by query."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ir_measures
import numpy as np

DEFAULT_METRICS = ("nDCG@10", "RR@10", "P@5", "R@100")
# ir-measures' choice without gdeval, a Perl script that reads no ids other than numbers.
PROVIDERS = ir_measures.providers.FallbackProvider(
    [provider for provider in ir_measures.DefaultPipeline.providers if provider.NAME != "gdeval"]
)
HITS_HELD = 1_000_000  # hits held before they are evaluated; bounds the memory that metrics over all documents take


def check_metrics(metrics: Sequence[str]) -> None:
    """Check the names of metrics.

    Raises:
        ValueError: ir-measures does not know a name, or cannot compute it here; or its cutoff is below 1.
    """
    use = f"use names such as {' '.join(DEFAULT_METRICS)}"
    for name in metrics:
        try:
            measure = ir_measures.parse_measure(name)
        except Exception as error:  # its grammar's, and those of the names that it looks up
            raise ValueError(f"unknown metric '{name}': {use}") from error
        if measure.params.get("cutoff", 1) < 1:  # a library in C would abort the process
            raise ValueError(f"metric '{name}': its cutoff must be at least 1")
        try:
            PROVIDERS.calc_aggregate([measure], {"query": {"document": 1}}, {"query": {"document": 1.0}})
        except Exception as error:  # of whichever library computes the metric
            raise ValueError(
                f"metric '{name}' cannot be computed here, some by pyndeval or cwl-eval alone: {use}"
            ) from error


def search_depth(metrics: Sequence[str], documents: int) -> int:
    """Return how many of a collection's `documents` the metrics look at: all of them where one has no cutoff."""
    depths = [0]
    for measure in map(ir_measures.parse_measure, metrics):
        whole_run = "cutoff" not in measure.params or measure.params.get("judged_only")
        depths.append(documents if whole_run else measure.params["cutoff"])
    return min(documents, max(depths))


class Scores(NamedTuple):
    """What metrics give a run.

    Attributes:
        means: the figure of all queries, by metric; a mean, for nearly all metrics.
        values: [queries] values by metric, in the order of the judgments.
    """

    means: dict[str, float]
    values: dict[str, np.ndarray]


def score_run(
    qrels: dict[str, dict[str, int]],
    run: Iterable[tuple[str, dict[str, float]]],
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> Scores:
    """Return what metrics give a run over the judged queries; a query without a result counts as 0.

    Args:
        qrels: qrels[query id][document id] is the grade.
        run: (query id, score by document id) of each query; it is read a part at a time.
        metrics: names as ir-measures spells them.
    """
    measures = [ir_measures.parse_measure(name) for name in metrics]
    totals = {measure: measure.aggregator() for measure in measures}
    places = {query: place for place, query in enumerate(qrels)}
    values = {measure: np.zeros(len(qrels)) for measure in measures}

    def score_part(part: dict[str, dict[str, float]]) -> None:
        # trec_eval's library writes out of its memory where a query's highest grade is below -1.
        judged = {query: qrels[query] if max(qrels[query].values()) >= 0 else {"": 0} for query in part}
        for value in PROVIDERS.iter_calc(measures, judged, {query: hits for query, hits in part.items() if hits}):
            totals[value.measure].add(value.value)
            values[value.measure][places[value.query_id]] = value.value

    part: dict[str, dict[str, float]] = {}
    missing, held = set(qrels), 0
    for query, hits in run:
        part[query] = hits
        missing.discard(query)
        held += len(hits)
        if held >= HITS_HELD:
            score_part(part)
            part, held = {}, 0
    score_part({**part, **{query: {} for query in missing}})
    named = list(zip(metrics, measures))
    means = {name: float(totals[measure].result()) for name, measure in named}
    return Scores(means, {name: values[measure] for name, measure in named})
