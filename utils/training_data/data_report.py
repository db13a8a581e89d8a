"""HTML page to inspect training data by: counts, distributions, and samples of accepted and rejected examples."""

import base64
import io
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from utils.html_page import render_page
from utils.records import TrainingExample
from utils.training_data.quality import Rejected

TEMPLATE = Path(__file__).with_suffix(".html")
SAMPLES_PER_KIND = 5  # samples shown for each query type and for each reason of rejection; more make the page long
T = TypeVar("T")


def render_data_report(
    title: str, summary: dict[str, str], examples: Sequence[TrainingExample], rejected: Sequence[Rejected], seed: int
) -> str:
    """Render a self-contained HTML page, images embedded, with random samples of each query type and each reason of
    rejection.

    Args:
        title: what the data was made from, for the heading.
        summary: rows of the table at the top, value by name.
        examples: all examples of the data, at least one.
        rejected: what was filtered out.
        seed: random seed of the samples.
    """
    kinds: dict[str, list[TrainingExample]] = {}
    for example in examples:
        kinds.setdefault(example.query_type or "query", []).append(example)
    reasons: dict[str, list[Rejected]] = {}
    for case in rejected:
        reasons.setdefault(case.reason, []).append(case)
    return render_page(
        TEMPLATE,
        "generate_training_data.py",
        title=title,
        summary=summary,
        charts=base64.b64encode(_distributions(kinds, examples)).decode(),
        samples={kind: _sample(cases, seed) for kind, cases in kinds.items()},
        counts={kind: len(cases) for kind, cases in kinds.items()},
        rejected={reason: _sample(cases, seed) for reason, cases in reasons.items()},
        rejected_counts={reason: len(cases) for reason, cases in reasons.items()},
    )


def _sample(cases: Sequence[T], seed: int) -> list[T]:
    """Return SAMPLES_PER_KIND random cases, or all in random order where there are fewer."""
    return random.Random(seed).sample(cases, min(SAMPLES_PER_KIND, len(cases)))


def _distributions(kinds: dict[str, list[TrainingExample]], examples: Sequence[TrainingExample]) -> bytes:
    """Return a PNG: the number of queries by type, and histograms of words per text and of examples per document."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    bars, queries, positives, documents = figure.subplots(2, 2).ravel()
    bars.barh(list(kinds), [len(cases) for cases in kinds.values()])
    bars.set_title("query types")
    for axis, name, values in (
        (queries, "words per query", [len(example.query.split()) for example in examples]),
        (positives, "words per positive document", [len(example.positive_document.split()) for example in examples]),
        (documents, "examples per document", list(Counter(example.source for example in examples).values())),
    ):
        axis.hist(values, bins=30)
        axis.set(title=name, yscale="log" if max(values) > 20 * (sum(values) / len(values)) else "linear")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90)
    return png.getvalue()
