"""Plots of what systems found on a collection: for a page, as SVG in the colors of its text, and as PNG."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.evaluation.groups import GroupRow
from utils.evaluation.results import Results

INK = "#1c2024"  # text and axes; in the SVG the color of the page's text, dark or light
BETTER, WORSE = "#2f86c9", "#d9652b"  # these and those below show on white as on black
COLORS = ("#2f86c9", "#d9652b", "#3a9563", "#a868c4", "#b08a1e", "#d3557f", "#2a9aa0", "#7d8790")
MARKERS = "osD^vPX*"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same figures make the same file
    "text.parse_math": False,  # a name may have a dollar sign
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}
WIDTH = 4.0  # inches; narrow, so that a phone shows the text in a size that can be read
PNG_DPI = 200
BARS = 1000  # drawn of a plot that has one for each query; more are narrower than a pixel
BINS = 40
FASTEST_MS = 0.01  # left end of the latencies; what is faster is drawn there
LABEL_LETTERS = 28  # of a name in a plot


class Plot(NamedTuple):
    """A plot as both kinds of image, with what it shows in words.

    Attributes:
        name: of its file, without suffix.
        alt: what can be seen, for those who do not see it.
        caption: how to read it.
    """

    name: str
    svg: str
    png: bytes
    alt: str
    caption: str


def draw_differences(results: Results) -> Plot:
    """Draw, for each query, how far the last system is above the first, sorted."""
    first, last = results.evaluations[0], results.evaluations[-1]
    sorted_values = np.sort(last.values[results.metric] - first.values[results.metric])
    count = len(sorted_values)
    shown = sorted_values[np.linspace(0, count - 1, min(count, BARS)).astype(int)]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for values, color in ((shown.clip(min=0), BETTER), (shown.clip(max=0), WORSE)):
            axis.stairs(values, np.linspace(0, count, len(shown) + 1), fill=True, color=color)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.margins(x=0.01)
        axis.set(xlabel="queries, sorted", ylabel=f"difference in {results.metric}")

    above, below = int((sorted_values > 0).sum()), int((sorted_values < 0).sum())
    alt = f"Differences in {results.metric}, sorted, from {sorted_values[0]:+.3f} to {sorted_values[-1]:+.3f}: "
    alt += f"{above:,} queries above 0, {count - above - below:,} at 0, {below:,} below."
    caption = f"Each query a bar: {last.system} minus {first.system}; blue above 0, orange below."
    return _plot("differences", 2.7, draw, alt, caption)


def draw_groups(number: int, grouping: str, rows: Sequence[GroupRow], metric: str) -> Plot:
    """Draw the differences of groups of queries, with their intervals; `rows` have differences."""
    places = range(len(rows))[::-1]
    means = np.array([row.difference.mean for row in rows])
    ends = np.array([(row.difference.low, row.difference.high) for row in rows])

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.axvline(0, color=INK, linewidth=0.8)
        colors = [(WORSE if row.difference.mean < 0 else BETTER) if row.sure else COLORS[-1] for row in rows]
        axis.hlines(places, ends[:, 0], ends[:, 1], colors=colors, linewidth=2)
        axis.scatter(means, places, c=colors, s=36, zorder=3)
        axis.set_yticks(places, [f"{_short(row.group)} ({row.queries:,})" for row in rows])
        axis.tick_params(axis="y", length=0)
        axis.set(xlabel=f"difference in {metric}", ylim=(-0.6, len(rows) - 0.4))

    alt = "; ".join(f"{row.group}, {row.queries:,} queries: {row.difference}" for row in rows)
    caption = f"By {grouping}, with the number of queries: mean difference and 95 % interval; gray where that spans 0."
    return _plot(f"groups_{number}", 0.8 + 0.3 * len(rows), draw, f"Differences by {grouping}: {alt}.", caption)


def draw_quality_against_costs(results: Results) -> Plot | None:
    """Draw the metric over the active terms of a document and over the FLOPS, a point a system; None where neither is
    known of any."""
    systems = [(place, s) for place, s in enumerate(results.evaluations) if s.costs.doc_terms is not None]
    if not systems:
        return None
    panels = {"doc_terms": "mean active terms of a document"}
    if any(system.costs.flops is not None for _, system in systems):
        panels["flops"] = "FLOPS: mean products of a query and a passage"

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(panels), sharey=True, squeeze=False).ravel()
        for axis, (cost, label) in zip(axes, panels.items()):
            for place, system in systems:
                x = getattr(system.costs, cost)
                color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
                x, y = ([], []) if x is None else ([x], [system.means[results.metric]])
                axis.plot(x, y, marker, color=color, label=_short(system.system), markersize=8)
            axis.set(xlabel=label, ylabel=results.metric)
            axis.margins(0.15)
            axis.set_xlim(left=0)
            axis.grid(alpha=0.25)
        _legend(figure, axes[0])

    points = (f"{s.system}: {s.means[results.metric]:.3f} with {s.costs.doc_terms:.0f} terms" for _, s in systems)
    alt = f"{results.metric} against active terms: {'; '.join(points)}."
    caption = "Up is better, left is cheaper. Systems whose costs are known; FLOPS where all vectors are sparse."
    return _plot("quality", 2.2 * len(panels) + 0.25 * len(systems), draw, alt, caption)


def draw_latencies(results: Results) -> Plot | None:
    """Draw how long queries take to encode, to search, and both; None where no system was timed."""
    timed = [(place, s) for place, s in enumerate(results.evaluations) if s.costs.encode_ms is not None]
    if not timed:
        return None
    panels: dict[str, dict[int, np.ndarray]] = {"encode": {}, "search": {}, "encode and search": {}}
    for place, system in timed:
        encode, search = system.costs.encode_ms, system.costs.search_ms
        panels["encode"][place] = encode
        if search is not None:
            panels["search"][place], panels["encode and search"][place] = search, encode + search
    panels = {name: times for name, times in panels.items() if times}
    everything = np.concatenate([ms for times in panels.values() for ms in times.values()])
    low = max(everything.min(), FASTEST_MS)
    bins = np.geomspace(low, max(everything.max(), 2 * low) * 1.01, BINS)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(panels), sharex=True, squeeze=False).ravel()
        for axis, (name, times) in zip(axes, panels.items()):
            for place, ms in times.items():
                color, label = COLORS[place % len(COLORS)], _short(results.evaluations[place].system)
                counts, _ = np.histogram(ms.clip(min=low), bins)
                axis.stairs(counts, bins, color=color, label=label, linewidth=1.6)
                axis.axvline(max(np.median(ms), low), color=color, linewidth=1, linestyle=":")
            axis.set(title=name, xscale="log", ylabel="queries")
        axes[-1].set_xlabel("milliseconds")
        axes[-1].xaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
        _legend(figure, axes[0])

    medians = (
        f"{results.evaluations[place].system} {np.median(ms):.2f} ms" for place, ms in list(panels.values())[-1].items()
    )
    alt = f"Histograms of the latency of a query; medians of {list(panels)[-1]}: {'; '.join(medians)}."
    caption = "One query at a time, on the machine that made this page. Dotted: medians."
    return _plot("latency", 1.3 * len(panels) + 0.4 + 0.25 * len(timed), draw, alt, caption)


def _plot(name: str, height: float, draw: Callable[[Figure], None], alt: str, caption: str) -> Plot:
    """Return what `draw` puts on a figure of a height in inches."""
    svg, png = io.StringIO(), io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font has not
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(svg, format="svg", metadata=nothing)
        figure.savefig(png, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    image = svg.getvalue()
    image = re.sub(rf"(fill|stroke): {INK}", r"\1: currentColor", image[image.index("<svg") :])
    image = re.sub('<g id="[^"]*">', "<g>", image)  # the same in each plot, and a page has each id once
    return Plot(name, image, png.getvalue(), alt, caption)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", alignment="left")


def _short(name: str) -> str:
    """Return a name on one line; of a long one, such as a path, the end."""
    line = " ".join(name.split())
    return line if len(line) <= LABEL_LETTERS else f"...{line[3 - LABEL_LETTERS :]}"
