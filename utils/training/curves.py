"""Curves of a training over its steps: loss, validation metric and active terms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from utils.files import replacing

SMOOTHING_SHARE = 0.1  # of all points; width of the moving average that is drawn over the raw curve


def save_curves(
    path: Path, steps: Sequence[dict[str, Any]], epochs: Sequence[dict[str, Any]], metric: str, comparable: bool
) -> None:
    """Draw the curves as a PNG, written whole or not at all.

    Args:
        steps: records with step, loss, query_terms and doc_terms.
        epochs: the history's records, each with the number of its last `step`.
        metric: name of the validation metric; the middle plot is left out where no epoch has one.
        comparable: whether training and validation losses are over as many documents, and so share an axis.
    """
    validated = [epoch for epoch in epochs if f"val_{metric}" in epoch]
    figure = Figure(figsize=(5 + 4 * bool(validated) + 4, 3.6), layout="constrained")
    axes = list(figure.subplots(1, 2 + bool(validated)))
    numbers = [record["step"] for record in steps]

    def draw(axis, name: str, label: str, color: str) -> None:
        values = [record[name] for record in steps]
        half = int(SMOOTHING_SHARE * len(values) / 2)
        parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
        axis.plot(numbers, values, color=color, alpha=0.25, linewidth=0.8)
        axis.plot(numbers, [sum(part) / len(part) for part in parts], color=color, label=label)

    loss, *middle, terms = axes
    draw(loss, "loss", "training", "tab:blue")
    loss.set(title="ranking loss", xlabel="step")
    if validated:
        ends = [epoch["step"] for epoch in validated]
        losses = [epoch["val_loss"] for epoch in validated]
        if comparable:
            loss.plot(ends, losses, "o-", color="tab:orange", label="validation")
        else:
            loss.plot([], [], "o-", color="tab:orange", label="validation, at the right")
            right = loss.twinx()
            right.plot(ends, losses, "o-", color="tab:orange")
            right.tick_params(axis="y", colors="tab:orange")
            right.spines["top"].set_visible(False)
        middle[0].plot(ends, [epoch[f"val_{metric}"] for epoch in validated], "o-", color="tab:green")
        middle[0].set(title=f"validation {metric}", xlabel="step")
    draw(terms, "doc_terms", "documents", "tab:blue")
    draw(terms, "query_terms", "queries", "tab:red")
    terms.set(title="active terms", xlabel="step", ylim=(0, None))
    for axis in (loss, terms):
        axis.legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)
