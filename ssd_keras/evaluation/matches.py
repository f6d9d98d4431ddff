"""Compares detections with the ground truth, image by image.

One row per detection goes to a temporary file: its class and score, and the objects that it
overlaps most. Memory therefore does not grow with the number of detections. Average precision and
every error analysis read these rows.
"""

import dataclasses
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from ssd_keras.data.records import Sample
from ssd_keras.detections import Detections
from ssd_keras.evaluation.inputs import checked_image, pixel_boxes, require_equal_lengths

# The relations of an object's class to the class of a detection. Each has two columns: the largest
# IoU of the detection with an object of this relation, and the number of that object, or -1 if the
# image has no object of this relation.
RELATIONS = ("same", "similar", "other")
DETECTION_ROW = np.dtype(
    [
        *[("image", np.int32), ("index", np.int32), ("class_id", np.int32), ("score", np.float64)],
        *((f"{relation}_iou", np.float64) for relation in RELATIONS),
        *((f"{relation}_object", np.int32) for relation in RELATIONS),
    ]
)
OBJECT_ROW = np.dtype(
    [
        *[("image", np.int32), ("class_id", np.int32), ("difficult", np.bool_)],
        *[("box", np.float64, 4), ("height", np.int32), ("width", np.int32)],
    ]
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MatchTable:
    """Detections and objects of a whole set, with their overlaps.

    Attributes:
        labels: Class names; `labels[0]` is class 1.
        detections: One `DETECTION_ROW` per detection, in the order of the images. `image` and
            `index` are the numbers of the image and of the detection in it, from 0.
        class_ids: int32, a copy of the column `class_id` of `detections`, which is 40 times faster
            to read.
        objects: One `OBJECT_ROW` per object. `box` is `yxyx` in pixels; `height` and `width` are
            those of its image.
        num_images: Number of images.
    """

    labels: tuple[str, ...]
    detections: np.ndarray
    class_ids: np.ndarray
    objects: np.ndarray
    num_images: int

    def num_objects(self, class_id: int) -> int:
        """Returns the number of objects of a class that are not difficult."""
        objects = self.objects
        return int(np.sum((objects["class_id"] == class_id) & ~objects["difficult"]))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The detections of one class in descending order of score. D is their number.

    Attributes:
        rows: `DETECTION_ROW` [D].
        numbers: int [D], the number of each row in `MatchTable.detections`.
        true_positive: bool [D], whether the detection is a true positive.
        ignored: bool [D], whether the detection found a difficult object.
    """

    rows: np.ndarray
    numbers: np.ndarray
    true_positive: np.ndarray
    ignored: np.ndarray


def match_table(
    detections: Iterable[Detections],
    ground_truth: Iterable[Sample],
    labels: Sequence[str],
    similar: Sequence[frozenset[int]] = (),
) -> MatchTable:
    """Compares the detections of each image with its objects.

    The images are read one by one. Only the rows of the table are kept, in a temporary file.

    Args:
        detections: One dictionary per image: `boxes` [N, 4], normalized `yxyx`, `scores` [N] and
            `classes` [N], from 1. Rows of class 0 are padding.
        ground_truth: One sample per image, in the same order. The encoded image is not used.
        labels: Class names; `labels[0]` is label id 1.
        similar: Groups of similar classes, as class ids.

    Returns:
        The table.

    Raises:
        ValueError: If the numbers of images differ, a label id is out of range, or a score is NaN.
    """
    require_equal_lengths(detections, ground_truth)
    relation = _relations(len(labels), similar)
    objects: list[np.ndarray] = []
    first_object = num_images = 0
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as class_file:
        for found, truth in zip(detections, ground_truth, strict=True):
            found = checked_image(found, truth, len(labels))
            rows = _detection_rows(found, truth, relation, first_object)
            rows["image"] = num_images
            file.write(rows.tobytes())
            class_file.write(rows["class_id"].tobytes())
            objects.append(_object_rows(truth, num_images))
            first_object += len(truth.labels)
            num_images += 1
        rows, class_ids = _mapped(file, DETECTION_ROW), _mapped(class_file, np.int32)
    joined = np.concatenate([np.zeros(0, OBJECT_ROW), *objects])
    return MatchTable(tuple(labels), rows, class_ids, joined, num_images)


def ranking(table: MatchTable, class_id: int, iou_threshold: float) -> Ranking:
    """Ranks the detections of a class and finds the true positives as the VOC devkit does.

    Args:
        table: From `match_table`.
        class_id: The class, from 1.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        The ranked detections.

    Source: `VOCevaldet.m` of the PASCAL VOC devkit.
    """
    numbers = np.flatnonzero(table.class_ids == class_id)
    numbers = numbers[np.argsort(-table.detections["score"][numbers], kind="stable")]
    rows = np.asarray(table.detections[numbers])
    hits = np.flatnonzero(rows["same_iou"] >= iou_threshold)
    targets = rows["same_object"][hits]
    true_positive, ignored = np.zeros((2, len(rows)), bool)
    true_positive[hits[np.unique(targets, return_index=True)[1]]] = True
    ignored[hits] = table.objects["difficult"][targets]
    return Ranking(rows, numbers, true_positive & ~ignored, ignored)


def pixel_iou(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Computes the IoU as the VOC devkit does: each side of a box is max - min + 1 pixels.

    Args:
        boxes: float64 [N, 4], `yxyx` in pixels.
        objects: float64 [G, 4], `yxyx` in pixels.

    Returns:
        float64 [N, G].

    Source: `VOCevaldet.m` of the PASCAL VOC devkit.
    """
    low = np.maximum(boxes[:, None, :2], objects[:, :2])  # [N, G, 2]
    high = np.minimum(boxes[:, None, 2:], objects[:, 2:])
    sides = np.maximum(high - low + 1, 0)
    overlap = sides[..., 0] * sides[..., 1]
    return overlap / (_pixel_area(boxes)[:, None] + _pixel_area(objects) - overlap)


def _mapped(file: IO[bytes], dtype: npt.DTypeLike) -> np.ndarray:
    """Maps a file to an array, which is read on demand. The file may be closed afterwards."""
    file.flush()
    return np.memmap(file, dtype, "r") if file.tell() else np.zeros(0, dtype)


def _pixel_area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def _relations(num_classes: int, similar: Sequence[frozenset[int]]) -> np.ndarray:
    """Returns int [1 + C, 1 + C]: the position in `RELATIONS` for each pair of classes."""
    relation = np.full((1 + num_classes, 1 + num_classes), RELATIONS.index("other"))
    for group in similar:
        relation[np.ix_(sorted(group), sorted(group))] = RELATIONS.index("similar")
    np.fill_diagonal(relation, RELATIONS.index("same"))
    return relation


def _detection_rows(
    found: Detections, truth: Sample, relation: np.ndarray, first_object: int
) -> np.ndarray:
    rows = np.zeros(len(found["scores"]), DETECTION_ROW)
    rows["index"] = np.arange(len(rows))
    rows["class_id"] = found["classes"]
    rows["score"] = found["scores"]
    for name in RELATIONS:
        rows[f"{name}_object"] = -1
    if len(rows) == 0 or len(truth.labels) == 0:
        return rows
    iou = pixel_iou(pixel_boxes(found["boxes"], truth), pixel_boxes(truth.boxes, truth))
    related = relation[rows["class_id"]][:, np.asarray(truth.labels, int)]  # [N, G]
    every = np.arange(len(rows))
    for number, name in enumerate(RELATIONS):
        where = related == number
        if where.any():
            of_relation = np.where(where, iou, -1.0)
            best = of_relation.argmax(axis=1)
            value = of_relation[every, best]
            rows[f"{name}_iou"] = np.maximum(value, 0)
            rows[f"{name}_object"] = np.where(value >= 0, best + first_object, -1)
    return rows


def _object_rows(truth: Sample, image: int) -> np.ndarray:
    rows = np.zeros(len(truth.labels), OBJECT_ROW)
    rows["image"] = image
    rows["class_id"] = truth.labels
    rows["difficult"] = truth.difficult
    rows["box"] = pixel_boxes(truth.boxes, truth)
    rows["height"], rows["width"] = truth.height, truth.width
    return rows
