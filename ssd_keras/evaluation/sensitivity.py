"""Sensitivity to the size and aspect ratio of objects, recall by feature map, and calibration."""

import dataclasses
import math

import numpy as np

from ssd_keras.config import SSDConfig
from ssd_keras.evaluation.inputs import mean_of_defined
from ssd_keras.evaluation.matches import MatchTable, Ranking, ranking
from ssd_keras.tiling import default_boxes

# Hoiem's groups of the objects of a class: the smallest 10 %, then the next 20, 40, 20 and 10 %.
SIZES = ("XS", "S", "M", "L", "XL")
ASPECTS = ("XT", "T", "M", "W", "XW")  # extra-tall to extra-wide
_GROUP_ENDS = (0.1, 0.3, 0.7, 0.9)
CALIBRATION_BINS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class ScoreBin:
    """Statistics of the detections whose scores are in one interval.

    Attributes:
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number of detections.
        mean_score: Mean score; NaN without detections.
        precision: Share of true positives; NaN without detections.
    """

    low: float
    high: float
    count: int
    mean_score: float
    precision: float


def object_groups(values: np.ndarray) -> np.ndarray:
    """Divides values into five groups by rank, with 10, 20, 40, 20 and 10 % of the values.

    Args:
        values: float [N], such as the areas of the objects of one class. Equal values are ranked in
            their order.

    Returns:
        int [N], the group of each value: 0 for the smallest values to 4 for the largest.

    Source: Hoiem et al., section 3.1, "Object characteristics".
    """
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return np.searchsorted(np.array(_GROUP_ENDS) * len(values), ranks, side="right")


def box_area(objects: np.ndarray) -> np.ndarray:
    """Returns the area of each object (`OBJECT_ROW`) in square pixels, float64 [G]."""
    ymin, xmin, ymax, xmax = objects["box"].T
    return (ymax - ymin) * (xmax - xmin)


def aspect_ratio(objects: np.ndarray) -> np.ndarray:
    """Returns width / height of each object (`OBJECT_ROW`), float64 [G]."""
    ymin, xmin, ymax, xmax = objects["box"].T
    return (xmax - xmin) / np.maximum(ymax - ymin, 1e-9)


def normalized_ap(
    table: MatchTable,
    class_id: int,
    groups: np.ndarray,
    num_groups: int = 5,
    iou_threshold: float = 0.5,
) -> list[float]:
    """Computes the normalized AP of one class for each group of its objects (figure 4).

    Only the objects of the group count. Detections of other objects of the class are ignored, and
    all false positives count. The normalized precision is r N / (r N + f) for recall r and f false
    positives, so that groups of different sizes can be compared. N is the mean number of objects of
    the classes that have objects.

    Args:
        table: From `match_table`.
        class_id: The class, from 1.
        groups: int, the group of each object in `table.objects`. Values of objects of other classes
            are not used.
        num_groups: Number of groups.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        For each group the area under the envelope of the normalized precision; NaN if the group has
        no objects.

    Source: Hoiem et al., section 3.1, equation 1. There N is 0.15 times the number of images,
    which is about the mean number of objects of a VOC class.
    """
    ranked = ranking(table, class_id, iou_threshold)
    objects = table.objects
    classes = range(1, 1 + len(table.labels))
    constant = np.mean([n for n in map(table.num_objects, classes) if n] or [0])
    counted = (objects["class_id"] == class_id) & ~objects["difficult"]
    false = np.cumsum(~ranked.true_positive & ~ranked.ignored)
    group_of_hit = _group_of_hits(ranked, groups)
    values = []
    for group in range(num_groups):
        total = int(np.sum(counted & (groups == group)))
        mine = group_of_hit == group
        if total == 0:
            values.append(float("nan"))
            continue
        recall = np.cumsum(mine) / total
        precision = recall * constant / np.maximum(recall * constant + false, 1e-12)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        values.append(float(np.sum(envelope[mine]) / total))
    return values


def mean_normalized_ap(
    table: MatchTable, values: np.ndarray, iou_threshold: float = 0.5
) -> list[float]:
    """Computes the mean normalized AP of the five groups of objects over all classes.

    Args:
        table: From `match_table`.
        values: float, the property of each object in `table.objects` by which each class is divided
            into groups, such as the result of `box_area`.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        One mean for each group, from the group of the smallest values to that of the largest.
    """
    rows = []
    for class_id in range(1, 1 + len(table.labels)):
        mine = (table.objects["class_id"] == class_id) & ~table.objects["difficult"]
        groups = np.full(len(table.objects), -1)
        groups[mine] = object_groups(values[mine])
        rows.append(normalized_ap(table, class_id, groups, iou_threshold=iou_threshold))
    return [mean_of_defined(column) for column in np.array(rows).reshape(-1, 5).T]


def responsible_maps(objects: np.ndarray, config: SSDConfig) -> np.ndarray:
    """Finds the feature map whose default box has the largest IoU with each object.

    Training matches each object with that default box, so the map is responsible for the object.

    Args:
        objects: `OBJECT_ROW` [G].
        config: Config of the model.

    Returns:
        int [G], the number of the map in `config.feature_maps`.

    Source: section 2.2, "Matching strategy".
    """
    defaults = default_boxes(config).astype(np.float64)
    low, high = defaults[:, :2].T, defaults[:, 2:].T  # [2, P]
    sizes = [math.prod(m.grid) * m.boxes_per_location for m in config.feature_maps]
    map_of_box = np.repeat(np.arange(len(sizes)), sizes)
    maps = np.zeros(len(objects), int)
    for number, row in enumerate(objects):
        box = row["box"] / (row["height"], row["width"], row["height"], row["width"])
        sides = np.minimum(high, box[2:, None]) - np.maximum(low, box[:2, None])
        overlap = np.prod(np.maximum(sides, 0), axis=0)
        union = np.prod(high - low, axis=0) + np.prod(box[2:] - box[:2]) - overlap
        maps[number] = map_of_box[np.argmax(overlap / union)]
    return maps


def recall_by_map(
    table: MatchTable, config: SSDConfig, score_threshold: float = 0.5, iou_threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Counts objects and found objects by feature map and size.

    Args:
        table: From `match_table`.
        config: Config of the model.
        score_threshold: Minimum score of a detection that finds an object.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        Two int64 arrays [number of maps, 5]: the number of objects that are not difficult, and how
        many of them are found. The columns are the groups of `object_groups` by area, over all
        classes.
    """
    counted = np.flatnonzero(~table.objects["difficult"])
    objects = table.objects[counted]
    found = np.zeros(len(table.objects), bool)
    for class_id in range(1, 1 + len(table.labels)):
        ranked = ranking(table, class_id, iou_threshold)
        strong = ranked.true_positive & (ranked.rows["score"] >= score_threshold)
        found[ranked.rows["same_object"][strong]] = True
    cells = (responsible_maps(objects, config), object_groups(box_area(objects)))
    totals, hits = np.zeros((2, len(config.feature_maps), len(SIZES)), np.int64)
    np.add.at(totals, cells, 1)
    np.add.at(hits, cells, found[counted])
    return totals, hits


def calibration(table: MatchTable, iou_threshold: float = 0.5) -> tuple[list[ScoreBin], float]:
    """Compares the scores of all detections with their precision.

    Detections of difficult objects are ignored.

    Args:
        table: From `match_table`.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        Ten intervals of the score, and the expected calibration error: the mean absolute difference
        between mean score and precision of an interval, weighted by its number of detections.

    Source: C. Guo, G. Pleiss, Y. Sun and K. Weinberger, "On Calibration of Modern Neural Networks",
    ICML 2017, section 2.
    """
    scores: list[np.ndarray] = [np.zeros(0)]
    true: list[np.ndarray] = [np.zeros(0, bool)]
    for class_id in range(1, 1 + len(table.labels)):
        ranked = ranking(table, class_id, iou_threshold)
        scores.append(ranked.rows["score"][~ranked.ignored])
        true.append(ranked.true_positive[~ranked.ignored])
    score, correct = np.concatenate(scores), np.concatenate(true)
    number = np.clip((score * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    bins, error = [], 0.0
    for k in range(CALIBRATION_BINS):
        mine = number == k
        count = int(mine.sum())
        mean, precision = (
            (float(score[mine].mean()), float(correct[mine].mean()))
            if count
            else (float("nan"), float("nan"))
        )
        bins.append(
            ScoreBin(k / CALIBRATION_BINS, (k + 1) / CALIBRATION_BINS, count, mean, precision)
        )
        error += abs(mean - precision) * count / len(score) if count else 0.0
    return bins, error


def _group_of_hits(ranked: Ranking, groups: np.ndarray) -> np.ndarray:
    """Returns int [D]: the group of the object of each true positive, or -1."""
    result = np.full(len(ranked.rows), -1)
    true = ranked.true_positive
    result[true] = groups[ranked.rows["same_object"][true]]
    return result
