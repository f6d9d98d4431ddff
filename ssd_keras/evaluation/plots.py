"""Plots precision-recall curves."""

import os

from ssd_keras.drawing import class_color
from ssd_keras.evaluation.voc import VOCResult
from ssd_keras.extras import require
from ssd_keras.files import atomic

require("matplotlib", "plots", "a plot")
from matplotlib.figure import Figure  # noqa: E402

_MIN_CONTRAST = 3.0


def check_format(path: str | os.PathLike[str]) -> None:
    """Raises a `ValueError` if the suffix of a file is not an image format of matplotlib."""
    suffix = os.path.splitext(path)[1].lower().removeprefix(".")
    formats = Figure().canvas.get_supported_filetypes()
    if suffix not in formats:
        raise ValueError(f"plot (={path}) must end in one of .{', .'.join(sorted(formats))}")


def line_color(class_id: int) -> tuple[float, float, float]:
    """Returns `class_color`, darkened until a line of it is readable on white.

    Args:
        class_id: Number of the class, counted from 1.

    Returns:
        RGB, 0..1, with a contrast to white of at least 3.

    Source: WCAG 2.1, contrast ratio and criterion 1.4.11.
    """
    red, green, blue = (channel / 255 for channel in class_color(class_id))
    while 1.05 / (_luminance(red, green, blue) + 0.05) < _MIN_CONTRAST:
        red, green, blue = 0.95 * red, 0.95 * green, 0.95 * blue
    return red, green, blue


def _luminance(*channels: float) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def plot_precision_recall(result: VOCResult, path: str | os.PathLike[str]) -> None:
    """Plots the precision-recall curve of each class that has objects.

    Args:
        result: From `voc_average_precision`.
        path: Image file to write; its suffix selects the format.

    Raises:
        ValueError: If the suffix is not an image format of matplotlib.
    """
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for class_id, c in enumerate(result.classes, start=1):
        if c.num_objects:
            label = f"{c.label} {c.ap_area:.3f}"
            axes.plot(c.recall, c.precision, color=line_color(class_id), label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"area AP at IoU {result.iou_threshold:g}, mean {result.mean_ap_area:.3f}")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)
