"""Average precision as defined by the PASCAL VOC devkit."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssd_keras.data.records import Sample
from ssd_keras.detections import Detections
from ssd_keras.evaluation.inputs import mean_of_defined, none_if_nan
from ssd_keras.evaluation.matches import MatchTable, match_table, ranking

# Floating point numbers, as in the Python evaluators of VOC2007. Level 6 is 6 * 0.1 and slightly
# above 0.6. A recall of 9/15 is therefore below this level.
_RECALL_LEVELS = np.linspace(0, 1, 11)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ClassPrecision:
    """Average precision and precision-recall curve of one class. D is the number of detections.

    Attributes:
        label: Name of the class.
        num_objects: Number of ground truth objects, without the difficult ones.
        num_detections: Number of all detections, including those of difficult objects.
        ap_11_point: Mean of the best precision at recall >= 0, 0.1, ..., 1 (VOC2007). NaN if there
            are no objects.
        ap_area: Area under the precision envelope (VOC2010 and later). NaN if there are no objects.
        recall: float64 [D], the recall after each detection in descending order of score.
            Detections of difficult objects are excluded.
        precision: float64 [D], the precision after the same detections.
    """

    label: str
    num_objects: int
    num_detections: int
    ap_11_point: float
    ap_area: float
    recall: np.ndarray
    precision: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class VOCResult:
    """VOC average precision of each class, and the means.

    Attributes:
        classes: One entry per class, in the order of the labels.
        iou_threshold: Minimum IoU of a true positive.
        num_images: Number of evaluated images.
    """

    classes: tuple[ClassPrecision, ...]
    iou_threshold: float
    num_images: int

    @property
    def mean_ap_11_point(self) -> float:
        """Mean 11-point AP of the classes that have objects; NaN if there are none."""
        return mean_of_defined([c.ap_11_point for c in self.classes])

    @property
    def mean_ap_area(self) -> float:
        """Mean area AP of the classes that have objects; NaN if there are none."""
        return mean_of_defined([c.ap_area for c in self.classes])

    @property
    def without_objects(self) -> tuple[str, ...]:
        """Names of the classes without objects. Their AP is NaN and not part of the means."""
        return tuple(c.label for c in self.classes if c.num_objects == 0)

    def __str__(self) -> str:
        rows = [(c.label, c.num_objects, c.ap_11_point, c.ap_area) for c in self.classes]
        total = sum(c.num_objects for c in self.classes)
        rows.append(("mean", total, self.mean_ap_11_point, self.mean_ap_area))
        width = max(len(row[0]) for row in rows)
        lines = [f"{'':{width}}  objects  11-point AP  area AP"]
        for label, count, eleven, area in rows:
            lines.append(f"{label:{width}}  {count:7d}  {eleven:11.4f}  {area:7.4f}")
        if self.without_objects:
            lines.append(f"not in the mean, without objects: {', '.join(self.without_objects)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON values, without the curves and with None for NaN."""
        return {
            "metric": "voc",
            "iou_threshold": self.iou_threshold,
            "num_images": self.num_images,
            "mean_ap_11_point": none_if_nan(self.mean_ap_11_point),
            "mean_ap_area": none_if_nan(self.mean_ap_area),
            "without_objects": list(self.without_objects),
            "classes": {
                c.label: {
                    "ap_11_point": none_if_nan(c.ap_11_point),
                    "ap_area": none_if_nan(c.ap_area),
                    "num_objects": c.num_objects,
                    "num_detections": c.num_detections,
                }
                for c in self.classes
            },
        }


def voc_average_precision(
    detections: Iterable[Detections],
    ground_truth: Iterable[Sample],
    labels: Sequence[str],
    *,
    iou_threshold: float = 0.5,
) -> VOCResult:
    """Computes average precision as the PASCAL VOC devkit does.

    Each detection is assigned to the object of its class with the largest IoU. If the IoU is below
    `iou_threshold`, the detection is a false positive. Otherwise it is ignored if the object is
    difficult, a true positive if it is the best-scored detection assigned to the object, and a
    false positive if it is not. Detections with equal scores keep their order. The IoU is computed
    on boxes in pixels, with sides of max - min + 1. The images may come from iterators. They are
    read one by one, and memory does not grow with the number of detections.

    Args:
        detections: One dictionary per image: `boxes` [N, 4], normalized `yxyx`, `scores` [N], and
            `classes` [N], starting at 1. Rows of class 0 are padding.
        ground_truth: One sample per image, in the same order. The encoded image is not used.
        labels: Class names; `labels[0]` is label id 1.
        iou_threshold: Minimum IoU of a true positive, in (0, 1].

    Returns:
        11-point and area AP of each class, and the precision-recall curves.

    Raises:
        ValueError: If the lists differ in length, a label id is out of range, a score is NaN, or
            the threshold is not in (0, 1].

    Source: `VOCevaldet.m` of the PASCAL VOC devkit.
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold (={iou_threshold}) must be above 0 and at most 1")
    return voc_result(match_table(detections, ground_truth, labels), iou_threshold=iou_threshold)


def voc_result(table: MatchTable, *, iou_threshold: float = 0.5) -> VOCResult:
    """Computes average precision from a table of matches; see `voc_average_precision`.

    Args:
        table: From `match_table`.
        iou_threshold: Minimum IoU of a true positive, in (0, 1].

    Returns:
        11-point and area AP of each class, and the precision-recall curves.
    """
    results = []
    for class_id, label in enumerate(table.labels, start=1):
        ranked = ranking(table, class_id, iou_threshold)
        results.append(
            class_precision(
                label,
                ranked.true_positive[~ranked.ignored],
                table.num_objects(class_id),
                len(ranked.rows),
            )
        )
    return VOCResult(tuple(results), iou_threshold, table.num_images)


def class_precision(
    label: str, true_positive: np.ndarray, num_objects: int, num_detections: int
) -> ClassPrecision:
    """Computes the average precision of one class.

    Args:
        label: Name of the class.
        true_positive: bool [D], in descending order of score, without ignored detections.
        num_objects: Number of objects that are not difficult.
        num_detections: Number of all detections, including ignored ones.

    Returns:
        The AP and the precision-recall curve.
    """
    found = np.cumsum(true_positive)
    precision = found / np.arange(1, len(found) + 1)
    if num_objects == 0:
        nothing = np.full(len(found), math.nan)
        return ClassPrecision(label, 0, num_detections, math.nan, math.nan, nothing, precision)
    recall = found / num_objects
    eleven = [precision[recall >= level].max(initial=0.0) for level in _RECALL_LEVELS]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    area = float(np.sum(envelope[true_positive]) / num_objects)  # each adds 1/num_objects recall
    eleven_point = float(np.mean(eleven))
    return ClassPrecision(label, num_objects, num_detections, eleven_point, area, recall, precision)
