"""Kinds of errors by rank, and confusion between classes (section 3.1, figure 3 of the paper).

The paper uses the diagnosis of its reference [21]: D. Hoiem, Y. Chodpathumwan and Q. Dai,
"Diagnosing Error in Object Detectors", ECCV 2012.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssd_keras.class_names import class_key
from ssd_keras.evaluation.matches import MatchTable, Ranking, ranking
from ssd_keras.files import read_lines

# The kinds of detections, in the order in which a detection is tested for them. The names are those
# of figure 3.
KINDS = ("correct", "localization", "similar", "other", "background")
WEAK_IOU = 0.1  # Hoiem: smallest IoU at which a detection belongs to an object

# Hoiem's groups of similar VOC classes. A class may be in several groups.
VOC_SIMILAR = (
    ("aeroplane", "bicycle", "boat", "bus", "car", "motorbike", "train"),
    ("bird", "cat", "cow", "dog", "horse", "person", "sheep"),
    ("chair", "diningtable", "sofa"),
    ("aeroplane", "bird"),
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ErrorProfile:
    """The kinds of the detections of one class by rank. D is the number of detections.

    Attributes:
        label: Name of the class.
        num_objects: Number of objects, without the difficult ones.
        kinds: int8 [D], the position in `KINDS` of each detection, in descending order of score.
            Detections of difficult objects are left out.
        recall: float64 [D], the recall after each detection at the IoU threshold.
        weak_recall: float64 [D], the recall after each detection at an IoU of 0.1.
    """

    label: str
    num_objects: int
    kinds: np.ndarray
    recall: np.ndarray
    weak_recall: np.ndarray

    def shares(self, count: int) -> dict[str, float]:
        """Returns the share of each kind among the `count` detections of highest score."""
        top = self.kinds[:count]
        return {kind: float(np.mean(top == k)) if len(top) else 0.0 for k, kind in enumerate(KINDS)}

    def false_positive_shares(self, count: int) -> dict[str, float]:
        """Returns the share of each kind among the `count` false positives of highest score."""
        top = self.kinds[self.kinds > 0][:count]
        return {
            kind: float(np.mean(top == k)) if len(top) else 0.0
            for k, kind in enumerate(KINDS)
            if k > 0
        }


def error_profile(table: MatchTable, class_id: int, iou_threshold: float = 0.5) -> ErrorProfile:
    """Finds the kind of each detection of a class.

    The kind of a false positive is given by the first rule that holds:

    - localization: its IoU with an object of its class is at least 0.1. This includes duplicates.
    - similar: its IoU with an object of a similar class is at least 0.1.
    - other: its IoU with an object of any other class is at least 0.1.
    - background: none of these.

    Args:
        table: From `match_table`, with the groups of similar classes.
        class_id: The class, from 1.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        The kinds of the detections, and the recall.

    Source: section 3.1, figure 3; Hoiem et al., section 2.2.
    """
    ranked = ranking(table, class_id, iou_threshold)
    rows = ranked.rows
    kinds = np.full(len(rows), KINDS.index("background"), np.int8)
    for relation, kind in (("other", "other"), ("similar", "similar"), ("same", "localization")):
        kinds[rows[f"{relation}_iou"] >= WEAK_IOU] = KINDS.index(kind)
    kinds[ranked.true_positive] = KINDS.index("correct")
    counted = ~ranked.ignored
    num_objects = table.num_objects(class_id)
    return ErrorProfile(
        table.labels[class_id - 1],
        num_objects,
        kinds[counted],
        np.cumsum(ranked.true_positive[counted]) / max(num_objects, 1),
        np.cumsum(_weak_hits(table, ranked)[counted]) / max(num_objects, 1),
    )


def confusion_matrix(
    table: MatchTable, score_threshold: float = 0.5, iou_threshold: float = 0.5
) -> np.ndarray:
    """Counts the detected classes of the objects of each class.

    Each detection is assigned to the object of largest IoU, of any class. Of equal IoUs, an object
    of the detected class comes first. Only the detection of highest score of an object is counted;
    the others are duplicates. Difficult objects are not counted.

    Args:
        table: From `match_table`.
        score_threshold: Minimum score of a detection.
        iou_threshold: Minimum IoU of a detection with its object.

    Returns:
        int64 [1 + C, 1 + C]: rows are the classes of objects, columns the detected classes. Row 0
        counts detections on the background, and column 0 objects without a detection.
    """
    size = 1 + len(table.labels)
    matrix = np.zeros((size, size), np.int64)
    numbers = np.flatnonzero(table.detections["score"] >= score_threshold)
    numbers = numbers[np.argsort(-table.detections["score"][numbers], kind="stable")]
    rows = np.asarray(table.detections[numbers])
    ious = np.stack([rows[f"{name}_iou"] for name in ("same", "similar", "other")])  # [3, D]
    ids = np.stack([rows[f"{name}_object"] for name in ("same", "similar", "other")])
    best = ious.argmax(axis=0)
    every = np.arange(len(rows))
    hit = ious[best, every] >= iou_threshold
    np.add.at(matrix, (0, rows["class_id"][~hit]), 1)
    targets, detected = ids[best, every][hit], rows["class_id"][hit]
    found, first = np.unique(targets, return_index=True)
    answer = np.zeros(len(table.objects), np.int64)
    answer[found] = detected[first]
    counted = ~table.objects["difficult"]
    np.add.at(matrix, (table.objects["class_id"][counted], answer[counted]), 1)
    return matrix


def similar_classes(
    labels: Sequence[str], path: str | os.PathLike[str] | None = None
) -> tuple[frozenset[int], ...]:
    """Returns the groups of similar classes.

    Args:
        labels: Class names; `labels[0]` is class 1.
        path: Text file with one group on each line, class names separated by commas. By default
            the groups are those of Hoiem for the VOC classes, without classes that are not labels.

    Returns:
        The class ids of each group.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a name in the file is not among the labels, or a line has one name only.
    """
    if path is None:
        ids = {class_key(name): k for k, name in enumerate(labels, start=1)}
        groups = [frozenset(ids[n] for n in names if n in ids) for names in VOC_SIMILAR]
        return tuple(group for group in groups if len(group) > 1)
    ids = {name: k for k, name in enumerate(labels, start=1)}
    found = []
    for line in read_lines(Path(path)):
        names = [name.strip() for name in line.split(",") if name.strip()]
        for name in names:
            if name not in ids:
                raise ValueError(
                    f"{path} names the class {name!r}, but the classes are {tuple(labels)}"
                )
        if len(names) < 2:
            raise ValueError(f"{path} has the line {line!r}: a group needs at least two classes")
        found.append(frozenset(ids[name] for name in names))
    return tuple(found)


def _weak_hits(table: MatchTable, ranked: Ranking) -> np.ndarray:
    """Returns bool [D]: whether a detection is the first that finds its object at an IoU of 0.1."""
    near = np.flatnonzero(ranked.rows["same_iou"] >= WEAK_IOU)
    targets = ranked.rows["same_object"][near]
    first = np.zeros(len(ranked.rows), bool)
    first[near[np.unique(targets, return_index=True)[1]]] = True
    first[near] &= ~table.objects["difficult"][targets]
    return first
