"""Figures of the report, drawn with matplotlib, as SVG and PNG."""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssd_keras.evaluation.analysis import FALSE_POSITIVE_COUNTS, RANK_FACTORS, Analysis
from ssd_keras.evaluation.errors import KINDS, ErrorProfile
from ssd_keras.evaluation.sensitivity import ASPECTS, SIZES
from ssd_keras.extras import require

require("matplotlib", "plots", "a report")
from matplotlib import rc_context  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

Draw = Callable[[], Figure]

MODEL_COLORS = ("#3366cc", "#dc6a00", "#109618", "#990099", "#c0392b", "#0099a8")
# Colors of `KINDS`, which people with color vision deficiency can distinguish.
KIND_COLORS = ("#e8e8e8", "#4477aa", "#ee7733", "#aa3377", "#222222")
_COLUMNS = 5
_MAX_POINTS = 400
# Class names are untrusted input, so matplotlib must not read a "$" in them as a formula.
_STYLE = {
    **{"text.parse_math": False, "svg.fonttype": "none", "font.size": 8, "axes.titlesize": 8},
    **{"axes.spines.top": False, "axes.spines.right": False},
}


def write_figure(draw: Draw, path: Path) -> str:
    """Draws a figure, writes it as PNG, and returns it as inline SVG.

    Args:
        draw: Function that returns the figure.
        path: The PNG file to write.

    Returns:
        The SVG element, without XML header.
    """
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # DejaVu lacks some scripts
        figure = draw()
        figure.savefig(path, dpi=120)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return re.sub(r"(?s)^.*?(?=<svg )", "", svg)  # without the XML header and the doctype


def precision_recall_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draws one chart per class with the precision-recall curve of each detector."""
    figure, charts = _grid([c.label for c in analyses[0].result.classes])
    for number, analysis in enumerate(analyses):
        for chart, c in zip(charts, analysis.result.classes, strict=True):
            if c.num_objects:
                points = _thinned(len(c.recall))
                chart.plot(
                    *(
                        np.append([first], v[points])
                        for first, v in ((0, c.recall), (1, c.precision))
                    ),
                    color=_color(number),
                    linewidth=1,
                    label=analysis.name,
                )
    for chart in charts:
        chart.set(xlim=(0, 1), ylim=(0, 1.02))
    _legend(figure, charts)
    figure.supxlabel("recall")
    figure.supylabel("precision")
    return figure


def error_rank_figure(analysis: Analysis) -> Figure:
    """Draws the kinds of detections by rank for each class, and recall (figure 3, upper row)."""
    profiles = [p for p in analysis.profiles if p.num_objects and len(p.kinds)]
    figure, charts = _grid([p.label for p in profiles] or ["no detections"])
    for chart, profile in zip(charts, profiles, strict=False):
        _draw_shares(chart, profile)
    _legend(figure, charts)
    figure.supxlabel("detections / objects")
    figure.supylabel("share of detections; recall (red)")
    return figure


def false_positive_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draws the kinds of the first false positives, averaged over classes (figure 3, lower row)."""
    figure = Figure(figsize=(min(3.4 * len(analyses), 14), 2.8), layout="constrained")
    charts = np.ravel(figure.subplots(1, len(analyses), sharey=True, squeeze=False)).tolist()
    for chart, analysis in zip(charts, analyses, strict=True):
        profiles = [p for p in analysis.profiles if (p.kinds > 0).any()]
        counts = [
            n for n in FALSE_POSITIVE_COUNTS if any(np.sum(p.kinds > 0) >= n for p in profiles)
        ]
        counts = counts or list(FALSE_POSITIVE_COUNTS[:1])
        bottom = np.zeros(len(counts))
        for kind, color in zip(KINDS[1:], KIND_COLORS[1:], strict=True):
            share = np.array(
                [
                    np.mean([p.false_positive_shares(n)[kind] for p in profiles] or [0.0])
                    for n in counts
                ]
            )
            chart.bar([str(n) for n in counts], share, bottom=bottom, color=color, label=kind)
            bottom += share
        chart.set(title=analysis.name, ylim=(0, 1), xlabel="first false positives")
    _legend(figure, charts)
    return figure


def sensitivity_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draws the normalized AP by object size and aspect ratio (figure 4)."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    charts = figure.subplots(1, 2, sharey=True).tolist()
    for number, analysis in enumerate(analyses):
        for chart, names, values in (
            (charts[0], SIZES, analysis.size_ap),
            (charts[1], ASPECTS, analysis.aspect_ap),
        ):
            chart.plot(names, values, "o-", color=_color(number), label=analysis.name)
    charts[0].set(title="object size, smallest to largest", ylim=(0, 1.02), ylabel="normalized AP")
    charts[1].set(title="aspect ratio, tallest to widest")
    _legend(figure, charts)
    return figure


def calibration_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draws precision against score. The curve of a calibrated detector is the diagonal."""
    figure = Figure(figsize=(4, 3), layout="constrained")
    chart = figure.subplots()
    chart.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for number, analysis in enumerate(analyses):
        bins = [b for b in analysis.bins if b.count]
        chart.plot(
            [b.mean_score for b in bins],
            [b.precision for b in bins],
            "o-",
            color=_color(number),
            label=analysis.name,
        )
    chart.set(xlabel="score", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    _legend(figure, [chart])
    return figure


def gains_figure(analyses: Sequence[Analysis]) -> Figure:
    """Draws the gain in mean AP if the errors of one kind were corrected, for each kind."""
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    chart = figure.subplots()
    kinds = list(analyses[0].gains)
    width = 0.8 / len(analyses)
    for number, analysis in enumerate(analyses):
        left = np.arange(len(kinds)) - 0.4 + (number + 0.5) * width
        gains = [0.0 if math.isnan(g) else g for g in analysis.gains.values()]
        chart.bar(left, gains, width, color=_color(number), label=analysis.name)
    chart.set_xticks(range(len(kinds)), kinds)
    chart.set(ylabel="gain in mean AP")
    _legend(figure, [chart])
    return figure


def _draw_shares(chart: Axes, profile: ErrorProfile) -> None:
    """Draws the cumulative shares of the kinds as areas, and both recalls as red lines."""
    factors = np.geomspace(RANK_FACTORS[0], RANK_FACTORS[-1], 25)
    counts = np.clip(np.round(factors * profile.num_objects).astype(int), 1, len(profile.kinds))
    shares = [profile.shares(int(n)) for n in counts]
    chart.stackplot(
        factors, [[s[kind] for s in shares] for kind in KINDS], colors=KIND_COLORS, labels=KINDS
    )
    chart.plot(factors, profile.recall[counts - 1], color="red", linewidth=1)
    chart.plot(factors, profile.weak_recall[counts - 1], color="red", linewidth=1, linestyle="--")
    chart.set_xscale("log", base=2)
    chart.set_xticks(RANK_FACTORS[::2], [f"{f:g}" for f in RANK_FACTORS[::2]])
    chart.set(xlim=(factors[0], factors[-1]), ylim=(0, 1))


def _grid(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Creates one chart for each title, in rows of five."""
    columns = min(_COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    size = (max(2.0 * columns, 4), 1.6 * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = np.ravel(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False))
    for chart, title in zip(axes, titles, strict=False):
        chart.set_title(title if len(title) <= 24 else f"{title[:23]}…")
    for chart in axes[len(titles) :]:
        chart.set_visible(False)
    return figure, axes[: len(titles)].tolist()


def _legend(figure: Figure, charts: Sequence[Axes]) -> None:
    """Adds one legend above the figure, from the first chart that has labels."""
    for chart in charts:
        handles, names = chart.get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside upper center", ncols=min(len(names), 5))
            return


def _thinned(length: int) -> np.ndarray:
    """Returns at most 400 indices from 0 to `length` - 1, including the first and the last."""
    return np.unique(np.linspace(0, max(length - 1, 0), min(length, _MAX_POINTS)).astype(int))


def _color(number: int) -> str:
    return MODEL_COLORS[number % len(MODEL_COLORS)]
