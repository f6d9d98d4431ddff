"""COCO average precision, computed by COCO's own code (pycocotools)."""

import contextlib
import dataclasses
import io
import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_keras.data.records import Sample
from ssd_keras.detections import Detections
from ssd_keras.evaluation.inputs import checked, mean_of_defined, none_if_nan, pixel_boxes
from ssd_keras.files import reading

COCO_STATISTICS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class COCOResult:
    """The twelve COCO metrics, and the AP of each class.

    Attributes:
        statistics: The metrics by the names in `COCO_STATISTICS`: AP over IoU 0.50:0.95, AP at IoU
            0.50 and 0.75, AP of small, medium and large objects, average recall (AR) at 1, 10 and
            100 detections per image, and AR of small, medium and large objects. A metric without
            objects is NaN.
        classes: Class name -> AP over IoU 0.50:0.95; NaN for a class without objects.
        num_images: Number of evaluated images.
    """

    statistics: dict[str, float]
    classes: dict[str, float]
    num_images: int

    def __str__(self) -> str:
        rows = [*self.classes.items(), *self.statistics.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value:7.4f}" for name, value in rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as JSON values, with None for NaN."""
        return {
            "metric": "coco",
            "num_images": self.num_images,
            "statistics": {name: none_if_nan(v) for name, v in self.statistics.items()},
            "classes": {label: none_if_nan(v) for label, v in self.classes.items()},
        }


def coco_average_precision(
    detections: Sequence[Detections],
    ground_truth: Sequence[Sample],
    labels: Sequence[str],
    *,
    annotations: str | os.PathLike[str] | None = None,
    category_ids: Sequence[int] | None = None,
) -> COCOResult:
    """Computes the twelve COCO metrics with pycocotools.

    By default the ground truth comes from the samples: a difficult object counts as a crowd region,
    and the area of an object is that of its box. With `annotations` the ground truth comes from
    that file, with its crowd regions and mask areas, and the samples provide only the ids and sizes
    of the images.

    Args:
        detections: One dictionary per image: `boxes` [N, 4], normalized `yxyx`, `scores` [N], and
            `classes` [N], starting at 1. Rows of class 0 are padding.
        ground_truth: One sample per image, in the same order. The encoded image is not used.
        labels: Class names; `labels[0]` is label id 1.
        annotations: A COCO `instances_*.json` file, or None.
        category_ids: The category id of each label in this file. Required with `annotations`.

    Returns:
        The metrics and the AP of each class.

    Raises:
        ValueError: If the lists differ in length, a label id is out of range, a score is NaN,
            `category_ids` does not match `labels`, or an image is not in the file.

    Source: `cocoeval.py` of github.com/cocodataset/cocoapi.
    """
    detections = checked(detections, ground_truth, len(labels))
    if annotations is None:
        category_ids = range(1, len(labels) + 1)
        image_ids = list(range(1, len(ground_truth) + 1))
        dataset = _coco_dataset(ground_truth, category_ids)
    elif category_ids is None or len(category_ids) != len(labels):
        raise ValueError(
            f"category_ids (={category_ids}) must give the category id in {annotations} of each of "
            f"the {len(labels)} labels"
        )
    else:
        dataset = _read_annotations(annotations)
        image_ids = _ids_in_file(ground_truth, dataset, annotations)
    found = _results(detections, ground_truth, category_ids, image_ids)
    statistics, precision = _run_coco(dataset, found, image_ids, category_ids)
    return COCOResult(
        statistics,
        {label: precision[k] for label, k in zip(labels, category_ids, strict=True)},
        len(ground_truth),
    )


def coco_results(
    detections: Sequence[Detections],
    ground_truth: Sequence[Sample],
    category_ids: Sequence[int],
    annotations: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """Converts detections to the COCO results format.

    Args:
        detections: One dictionary per image; see `coco_average_precision`. Without padding.
        ground_truth: One sample per image, in the same order. Only ids and sizes are used.
        category_ids: The COCO category id of each label.
        annotations: A COCO `instances_*.json` file that provides the image ids. By default they are
            the ids of the samples, converted to int if they consist of digits.

    Returns:
        One dictionary per detection: `image_id`, `category_id`, `bbox` (x, y, width, height, in
        pixels) and `score`.

    Raises:
        ValueError: If an image is not in the file.
    """
    ids: Sequence[int | str] = [
        int(truth.image_id) if truth.image_id.isdigit() else truth.image_id
        for truth in ground_truth
    ]
    if annotations is not None:
        ids = _ids_in_file(ground_truth, _read_annotations(annotations), annotations)
    return _results(detections, ground_truth, category_ids, ids)


def _read_annotations(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a COCO file and adds fields that pycocotools needs and some tools do not write."""
    remedy = "it must be COCO's instances_*.json"
    with reading(path, remedy), open(path, encoding="utf-8") as file:
        dataset: dict[str, Any] = json.load(file)
        boxed = [a for a in dataset.get("annotations", []) if len(a.get("bbox") or ()) == 4]
        for number, annotation in enumerate(boxed, start=1):
            annotation["id"] = number  # pycocotools treats id 0 as "no object"
            annotation.setdefault("iscrowd", 0)
            annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
        return {**dataset, "annotations": boxed}


def _results(
    detections: Sequence[Detections],
    ground_truth: Sequence[Sample],
    category_ids: Sequence[int],
    image_ids: Sequence[int | str],
) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for image_id, truth, image in zip(image_ids, ground_truth, detections, strict=True)
        for box, label, score in zip(
            _pixel_xywh(image["boxes"], truth),
            np.asarray(image["classes"], int).tolist(),
            np.asarray(image["scores"], float).tolist(),
            strict=True,
        )
    ]


def _run_coco(
    dataset: dict[str, Any],
    found: list[dict[str, Any]],
    image_ids: Sequence[int],
    category_ids: Sequence[int],
) -> tuple[dict[str, float], dict[int, float]]:
    """Returns the twelve metrics, and the AP by category id."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # `COCO.loadRes` would add these fields, but it fails for an empty list.
    for number, item in enumerate(found, start=1):
        item.update(id=number, area=item["bbox"][2] * item["bbox"][3], iscrowd=0)
    truth, results = COCO(), COCO()
    truth.dataset = dataset
    results.dataset = {**dataset, "annotations": found}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth.createIndex()
        results.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.params.imgIds = list(image_ids)
        evaluation.params.catIds = list(category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # [10 IoUs, 101 recalls, C, 4 sizes, 3 limits] -> [10, 101, C]: all sizes, limit of 100
    # detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    precision = np.where(precision < 0, math.nan, precision)  # -1 means undefined
    statistics = [math.nan if value < 0 else float(value) for value in evaluation.stats]
    return (
        dict(zip(COCO_STATISTICS, statistics, strict=True)),
        # `evaluate` has sorted the category ids.
        {k: mean_of_defined(precision[..., n]) for n, k in enumerate(sorted(category_ids))},
    )


def _coco_dataset(ground_truth: Sequence[Sample], category_ids: Sequence[int]) -> dict[str, Any]:
    """Converts the samples to a COCO dataset whose image ids start at 1."""
    annotations = [
        {
            "image_id": image_id,
            "category_id": category_ids[label - 1],
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(difficult),
        }
        for image_id, truth in enumerate(ground_truth, start=1)
        for box, label, difficult in zip(
            _pixel_xywh(truth.boxes, truth), truth.labels, truth.difficult, strict=True
        )
    ]
    return {
        "images": [{"id": image_id} for image_id in range(1, len(ground_truth) + 1)],
        "categories": [{"id": k} for k in category_ids],
        "annotations": [{"id": n, **a} for n, a in enumerate(annotations, start=1)],
    }


def _pixel_xywh(boxes: np.ndarray, image: Sample) -> list[list[float]]:
    ymin, xmin, ymax, xmax = pixel_boxes(boxes, image).T
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=-1).round(3).tolist()


def _ids_in_file(
    ground_truth: Sequence[Sample], dataset: dict[str, Any], path: str | os.PathLike[str]
) -> list[int]:
    """Finds the image id of each sample in a COCO file, by id or by file name."""
    by_id = {str(image["id"]): image["id"] for image in dataset["images"]}
    by_name = {os.path.splitext(i["file_name"])[0]: i["id"] for i in dataset["images"]}
    # A file name may equal the id of another image ("2.jpg" with id 1). If all samples are found by
    # id, only ids are used. Otherwise, if all are found by name, only names are used.
    known = by_id | by_name
    for rule in (by_name, by_id):
        if all(truth.image_id in rule for truth in ground_truth):
            known = rule
    for truth in ground_truth:
        if truth.image_id not in known:
            raise ValueError(
                f"image {truth.image_id!r} is not in {path}: evaluate records that were prepared "
                "from that file"
            )
    return [known[truth.image_id] for truth in ground_truth]
