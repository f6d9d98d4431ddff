"""Precision over recall as a picture."""

import os

from matplotlib.figure import Figure

from ssd_keras.drawing import class_colour
from ssd_keras.evaluation.voc import VOCResult
from ssd_keras.files import atomic


def plot_precision_recall(result: VOCResult, path: str | os.PathLike[str]) -> None:
    """Plots the precision-recall curve of each class that has objects."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for class_id, c in enumerate(result.classes, start=1):
        if c.num_objects:
            colour = [channel / 255 for channel in class_colour(class_id)]
            axes.plot(c.recall, c.precision, color=colour, label=f"{c.label} {c.ap_area:.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"area AP at IoU {result.iou_threshold:g}, mean {result.mean_ap_area:.3f}")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)
