"""Plots objects and default boxes by height and width, and the positives of each feature map."""

import os

import numpy as np

from ssd_keras.data.box_coverage import Coverage
from ssd_keras.extras import require
from ssd_keras.files import atomic

require("matplotlib", "plots", "the picture")
from matplotlib.figure import Figure  # noqa: E402

_COLORS = ("#9ca3af", "#f59e0b", "#dc2626")


def plot_coverage(coverages: dict[str, Coverage], path: str | os.PathLike[str]) -> None:
    """Plots one row for each coverage.

    Args:
        coverages: Title -> coverage, at least one.
        path: Image file to write; its suffix selects the format.

    Raises:
        ValueError: If the suffix is not an image format of matplotlib.
    """
    figure = Figure(figsize=(11, 4.6 * len(coverages)), layout="constrained")
    rows = figure.subplots(len(coverages), 2, squeeze=False, width_ratios=(3, 2))
    for (scatter, bars), (title, found) in zip(rows, coverages.items(), strict=True):
        near = found.by_threshold > 0
        none = found.positives == 0
        groups = {"IoU 0.5 or more": near, "nearest box only": ~near & ~none, "no match": none}
        for (name, mask), color in zip(groups.items(), _COLORS, strict=True):
            label = f"object: {name} ({mask.sum()})"
            scatter.scatter(*found.sizes[mask, ::-1].T, s=5, color=color, label=label)
        boxes = np.array([(box.width, box.height) for box in found.shapes])
        scatter.scatter(*boxes.T, s=42, marker="+", color="#1d4ed8", label="default boxes")
        scatter.set(xlabel="width, pixels", ylabel="height, pixels")
        scatter.set_xscale("log", base=2)
        scatter.set_yscale("log", base=2)
        for axis in (scatter.xaxis, scatter.yaxis):
            axis.set_major_formatter("{x:g}")  # 64 instead of 2^6
        scatter.set_title(f"{title}: {100 * found.share:.1f}% of {len(near)} objects at IoU 0.5")
        scatter.legend(fontsize="small", loc="lower right")
        scatter.grid(alpha=0.3)
        names = list(dict.fromkeys(box.feature_map for box in found.shapes))
        pairs = list(zip(found.shapes, found.matches, strict=True))
        counts = [sum(n for box, n in pairs if box.feature_map == name) for name in names]
        drawn = bars.bar(names, counts, color="#1d4ed8")
        bars.bar_label(drawn, fontsize="small")
        bars.tick_params(axis="x", rotation=30)
        bars.set(title="positives of each feature map", ylabel="matched default boxes")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=100)
