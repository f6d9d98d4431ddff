"""What the VOC and COCO evaluators share: checked detections, boxes in pixels, means."""

import math
from collections.abc import Sequence

import numpy as np

from ssd_keras.data.records import Sample
from ssd_keras.detections import Detections


def checked(
    detections: Sequence[Detections], ground_truth: Sequence[Sample], num_classes: int
) -> list[Detections]:
    """The detections of each image without padding, rows of class 0.

    Raises:
        ValueError: If the lists do not fit together, or a value is out of range.
    """
    if len(detections) != len(ground_truth):
        raise ValueError(
            f"detections has {len(detections)} images and ground_truth {len(ground_truth)}: "
            "both must list the same images in the same order"
        )
    real: list[Detections] = []
    for found, truth in zip(detections, ground_truth, strict=True):
        columns = {name: np.asarray(found[name]) for name in ("boxes", "scores", "classes")}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"image {truth.image_id!r} has {lengths}: every detection must have all three"
            )
        columns = {name: values[columns["classes"] != 0] for name, values in columns.items()}
        if np.isnan(columns["scores"]).any():
            raise ValueError(f"image {truth.image_id!r} has a detection whose score is NaN")
        for what, ids in (("a detection", columns["classes"]), ("an object", truth.labels)):
            if len(ids) and not 1 <= np.min(ids) <= np.max(ids) <= num_classes:
                raise ValueError(
                    f"image {truth.image_id!r} has {what} of class {np.min(ids)} or "
                    f"{np.max(ids)}, but class ids must be from 1 to {num_classes}"
                )
        real.append(columns)
    return real


def pixel_boxes(boxes: np.ndarray, image: Sample) -> np.ndarray:
    """Normalised boxes in pixels, yxyx `[N, 4]`.

    Rounding to a thousandth undoes that of the division by the image's size, which decides IoUs
    that lie on a threshold.
    """
    size = np.array([image.height, image.width] * 2, np.float64)
    return np.round(np.asarray(boxes, np.float64).reshape(-1, 4) * size, 3)


def mean_of_defined(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = [v for v in np.ravel(values) if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def none_if_nan(value: float) -> float | None:
    """A number as JSON has it: undefined is None."""
    return None if math.isnan(value) else value
