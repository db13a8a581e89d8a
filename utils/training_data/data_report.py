"""A page by which a person judges training data in two minutes: counts, distributions, samples, what was left out."""

import base64
import io
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import jinja2
from matplotlib.figure import Figure

from utils.records import TrainingExample
from utils.training_data.quality import Rejected

PAGE = Path(__file__).with_suffix(".html")
SAMPLES_PER_KIND = 5  # of each kind of query, and of each reason
T = TypeVar("T")


def render_data_report(
    title: str, summary: dict[str, str], examples: Sequence[TrainingExample], rejected: Sequence[Rejected], seed: int
) -> str:
    """HTML in one file, pictures included. The samples are drawn by chance, of each kind of query and each reason."""
    kinds: dict[str, list[TrainingExample]] = {}
    for example in examples:
        kinds.setdefault(example.query_type or "query", []).append(example)
    reasons: dict[str, list[Rejected]] = {}
    for case in rejected:
        reasons.setdefault(case.reason, []).append(case)
    page = jinja2.Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8"))
    return page.render(
        title=title,
        summary=summary,
        picture=base64.b64encode(_distributions(kinds, examples)).decode(),
        samples={kind: _sample(cases, seed) for kind, cases in kinds.items()},
        counts={kind: len(cases) for kind, cases in kinds.items()},
        rejected={reason: _sample(cases, seed) for reason, cases in reasons.items()},
        left_out={reason: len(cases) for reason, cases in reasons.items()},
    )


def _sample(cases: Sequence[T], seed: int) -> list[T]:
    return random.Random(seed).sample(cases, min(SAMPLES_PER_KIND, len(cases)))


def _distributions(kinds: dict[str, list[TrainingExample]], examples: Sequence[TrainingExample]) -> bytes:
    """PNG: how many queries of each kind, and histograms of lengths and of examples a document."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    bars, queries, positives, documents = figure.subplots(2, 2).ravel()
    bars.barh(list(kinds), [len(cases) for cases in kinds.values()])
    bars.set_title("kinds of queries")
    for axis, name, values in (
        (queries, "words a query", [len(example.query.split()) for example in examples]),
        (positives, "words a positive document", [len(example.positive_document.split()) for example in examples]),
        (documents, "examples a document", list(Counter(example.source for example in examples).values())),
    ):
        axis.hist(values, bins=30)
        axis.set(title=name, yscale="log" if max(values) > 20 * (sum(values) / len(values)) else "linear")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90)
    return data.getvalue()
