"""Plots the training curves of a run."""

import csv
import os
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssd_keras.files import atomic, reading


def plot_history(
    history: str | os.PathLike[str] | Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
) -> None:
    """Plots the losses, learning rate and validation AP of a run over the iterations.

    Args:
        history: The file `history.csv` of a run, or its rows: column name -> number. Missing
            columns are not plotted.
        path: The image file to write; its suffix selects the format.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If there are no rows, or the file is not a history.
    """
    if isinstance(history, (str, os.PathLike)):
        remedy = "it must be the history.csv of a run"
        with reading(history, remedy), open(history, newline="", encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            if any("iteration" not in row for row in rows):
                raise ValueError("the column iteration is missing")
    else:
        rows = [dict(row) for row in history]
    if not rows:
        raise ValueError(f"history (={history}) has no rows to plot")
    measured = any("val_mean_ap" in row for row in rows)
    heights = (3, 2, 1) if measured else (3, 1)
    figure = Figure(figsize=(8, 1.5 * sum(heights)), layout="constrained")
    losses, *middle, rate = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    for name in ("loss", "localization_loss", "confidence_loss"):
        _plot_column(losses, rows, name, "-")
        _plot_column(losses, rows, f"val_{name}", "--")
    losses.set(ylabel="loss", ylim=(0, None))
    for axes in middle:
        _plot_column(axes, rows, "val_mean_ap", "o-")
        axes.set(ylabel="validation AP", ylim=(0, 1))
    _plot_column(rate, rows, "learning_rate", "-")
    rate.set(ylabel="learning rate", xlabel="iteration", ylim=(0, None))
    for axes in (losses, *middle, rate):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _plot_column(axes: Axes, rows: Sequence[Mapping[str, float]], name: str, style: str) -> None:
    points = [(row["iteration"], row[name]) for row in rows if name in row]
    if points:
        axes.plot(*zip(*points, strict=True), style, label=name)
