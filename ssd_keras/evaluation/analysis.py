"""Computes all analyses of one detector for the report, from one table of matches."""

import dataclasses
from typing import Any

import numpy as np

from ssd_keras.config import SSDConfig
from ssd_keras.evaluation.errors import KINDS, ErrorProfile, confusion_matrix, error_profile
from ssd_keras.evaluation.inputs import none_if_nan
from ssd_keras.evaluation.matches import MatchTable, ranking
from ssd_keras.evaluation.sensitivity import (
    ASPECTS,
    SIZES,
    ScoreBin,
    aspect_ratio,
    box_area,
    calibration,
    mean_normalized_ap,
    recall_by_map,
)
from ssd_keras.evaluation.tide import tide_counts, tide_gains
from ssd_keras.evaluation.voc import VOCResult, voc_result

# The x axes of figure 3 of the paper. Lower row: numbers of false positives. Upper row: numbers of
# detections as multiples of the number of objects.
FALSE_POSITIVE_COUNTS = (25, 50, 100, 200, 400, 800, 1600, 3200)
RANK_FACTORS = (0.125, 0.25, 0.5, 1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A detection or an object that is shown as a picture.

    Attributes:
        image: Number of the image in the record set, from 0.
        index: Number of the detection in the image, or -1 for a missed object.
        class_id: The class, from 1.
        kind: The kind of error, from `KINDS`, or "missed".
        score: Score of the detection. For a missed object the score of its best detection, or 0 if
            it has none.
        box: (ymin, xmin, ymax, xmax) of a missed object in pixels; None for a detection.
    """

    image: int
    index: int
    class_id: int
    kind: str
    score: float
    box: tuple[float, float, float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """The analysis of one detector on one record set.

    Attributes:
        name: Name of the detector.
        result: VOC average precision.
        profiles: The kinds of the detections of each class by rank.
        confusion: See `confusion_matrix`.
        size_ap: Mean normalized AP of the five groups of sizes, smallest first.
        aspect_ap: Mean normalized AP of the five groups of aspect ratios, tallest first.
        map_names: Names of the feature maps; empty if the config is not known.
        map_objects: int64 [maps, 5], number of objects by feature map and size.
        map_found: int64 [maps, 5], number of found objects by feature map and size.
        bins: Mean score and precision in each interval of the score.
        calibration_error: Expected calibration error.
        gains: Kind of error -> gain in mean AP if these errors were corrected.
        counts: Kind of error -> number of errors.
        misses: Missed objects; see `worst_misses`.
        false_positives: The false positives of highest score.
    """

    name: str
    result: VOCResult
    profiles: tuple[ErrorProfile, ...]
    confusion: np.ndarray
    size_ap: list[float]
    aspect_ap: list[float]
    map_names: tuple[str, ...]
    map_objects: np.ndarray
    map_found: np.ndarray
    bins: list[ScoreBin]
    calibration_error: float
    gains: dict[str, float]
    counts: dict[str, int]
    misses: list[Example]
    false_positives: list[Example]

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers of the analysis as JSON values, without curves and pictures."""
        return {
            "name": self.name,
            **self.result.to_dict(),
            "error_shares": {
                p.label: {str(f): p.shares(round(f * p.num_objects)) for f in RANK_FACTORS}
                for p in self.profiles
            },
            "confusion": self.confusion.tolist(),
            "size_ap": dict(zip(SIZES, map(none_if_nan, self.size_ap), strict=True)),
            "aspect_ap": dict(zip(ASPECTS, map(none_if_nan, self.aspect_ap), strict=True)),
            "recall_by_map": {
                name: {"objects": objects.tolist(), "found": found.tolist()}
                for name, objects, found in zip(
                    self.map_names, self.map_objects, self.map_found, strict=True
                )
            },
            "calibration_error": self.calibration_error,
            "gains": {kind: none_if_nan(gain) for kind, gain in self.gains.items()},
            "error_counts": self.counts,
        }


def analyze(
    name: str,
    table: MatchTable,
    config: SSDConfig | None = None,
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    examples: int = 12,
) -> Analysis:
    """Computes all analyses of a detector.

    Args:
        name: Name of the detector.
        table: From `match_table`, with the groups of similar classes.
        config: Config of the model, for recall by feature map, or None.
        score_threshold: Minimum score of a detection for confusion, recall by feature map and
            missed objects.
        iou_threshold: Minimum IoU of a true positive.
        examples: Largest number of missed objects, and of false positives, to select.

    Returns:
        The analysis.
    """
    classes = range(1, 1 + len(table.labels))
    objects, found = np.zeros((2, 0, len(SIZES)), np.int64)
    if config is not None:
        objects, found = recall_by_map(table, config, score_threshold, iou_threshold)
    bins, error = calibration(table, iou_threshold)
    return Analysis(
        name,
        voc_result(table, iou_threshold=iou_threshold),
        tuple(error_profile(table, k, iou_threshold) for k in classes),
        confusion_matrix(table, score_threshold, iou_threshold),
        mean_normalized_ap(table, box_area(table.objects), iou_threshold),
        mean_normalized_ap(table, aspect_ratio(table.objects), iou_threshold),
        () if config is None else tuple(m.name for m in config.feature_maps),
        objects,
        found,
        bins,
        error,
        tide_gains(table, iou_threshold),
        tide_counts(table, iou_threshold),
        worst_misses(table, examples, score_threshold, iou_threshold),
        worst_false_positives(table, examples, iou_threshold),
    )


def worst_misses(
    table: MatchTable, count: int, score_threshold: float = 0.5, iou_threshold: float = 0.5
) -> list[Example]:
    """Selects the objects that no detection with a minimum score finds.

    The score of an object is that of its true positive, or 0 if it has none. The objects of lowest
    score come first. Of equal scores, the object that covers the largest part of its image comes
    first. Difficult objects are not selected.

    Args:
        table: From `match_table`.
        count: Largest number of objects to select.
        score_threshold: Minimum score of a detection.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        The missed objects.
    """
    best = np.zeros(len(table.objects))
    for class_id in range(1, 1 + len(table.labels)):
        ranked = ranking(table, class_id, iou_threshold)
        true = ranked.rows[ranked.true_positive]
        best[true["same_object"]] = true["score"]
    missed = (best < score_threshold) & ~table.objects["difficult"]
    objects, best = table.objects[missed], best[missed]
    share = box_area(objects) / (objects["height"] * objects["width"])
    return [
        Example(
            image=int(objects["image"][k]),
            index=-1,
            class_id=int(objects["class_id"][k]),
            kind="missed",
            score=float(best[k]),
            box=tuple(objects["box"][k].tolist()),
        )
        for k in np.lexsort((-share, best))[:count]
    ]


def worst_false_positives(
    table: MatchTable, count: int, iou_threshold: float = 0.5
) -> list[Example]:
    """Selects the false positives of highest score over all classes.

    Args:
        table: From `match_table`, with the groups of similar classes.
        count: Largest number of false positives to select.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        The false positives, highest score first.
    """
    found: list[Example] = []
    for class_id in range(1, 1 + len(table.labels)):
        ranked = ranking(table, class_id, iou_threshold)
        rows = ranked.rows[~ranked.ignored]
        kinds = error_profile(table, class_id, iou_threshold).kinds
        for number in np.flatnonzero(kinds > 0)[:count]:
            row, kind = rows[number], KINDS[kinds[number]]
            found.append(
                Example(int(row["image"]), int(row["index"]), class_id, kind, float(row["score"]))
            )
    return sorted(found, key=lambda example: -example.score)[:count]
