"""Shared code of the VOC and COCO evaluators: input checks, boxes in pixels, and means."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence, Sized

import numpy as np

from ssd_keras.data.records import Sample
from ssd_keras.detections import Detections


def checked(
    detections: Sequence[Detections], ground_truth: Sequence[Sample], num_classes: int
) -> list[Detections]:
    """Checks the inputs of an evaluator and removes the padding from the detections.

    Args:
        detections: One dictionary per image: `boxes` [N, 4], `scores` [N] and `classes` [N]. Rows
            of class 0 are padding.
        ground_truth: One sample per image, in the same order.
        num_classes: C, the largest valid class id.

    Returns:
        The detections of each image without padding.

    Raises:
        ValueError: If the lists or the arrays of an image differ in length, a score is NaN, or a
            class id is not in 1..C.
    """
    require_equal_lengths(detections, ground_truth)
    return [
        checked_image(found, truth, num_classes)
        for found, truth in zip(detections, ground_truth, strict=True)
    ]


def require_equal_lengths(detections: Iterable[Detections], ground_truth: Iterable[Sample]) -> None:
    """Raises ValueError if two sequences differ in length. Iterators are not checked."""
    if not (isinstance(detections, Sized) and isinstance(ground_truth, Sized)):
        return
    if len(detections) != len(ground_truth):
        raise ValueError(
            f"detections has {len(detections)} images and ground_truth {len(ground_truth)}: "
            "both must list the same images in the same order"
        )


def checked_image(found: Detections, truth: Sample, num_classes: int) -> Detections:
    """Checks the detections and the objects of one image, and removes the padding.

    Args:
        found: The detections; rows of class 0 are padding.
        truth: The sample of the image.
        num_classes: C, the largest valid class id.

    Returns:
        The detections without padding.

    Raises:
        ValueError: If the arrays differ in length, a score is NaN, or a class id is not in 1..C.
    """
    columns = {name: np.asarray(found[name]) for name in ("boxes", "scores", "classes")}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"image {truth.image_id!r} has detections of lengths {lengths}: boxes, scores and "
            "classes must have the same length"
        )
    columns = {name: values[columns["classes"] != 0] for name, values in columns.items()}
    if np.isnan(columns["scores"]).any():
        raise ValueError(f"image {truth.image_id!r} has a detection whose score is NaN")
    for item, ids in (("a detection", columns["classes"]), ("an object", truth.labels)):
        if len(ids) and not 1 <= np.min(ids) <= np.max(ids) <= num_classes:
            raise ValueError(
                f"image {truth.image_id!r} has {item} of class {np.min(ids)} or "
                f"{np.max(ids)}, but class ids must be from 1 to {num_classes}"
            )
    return columns


def unzipped(
    pairs: Iterable[tuple[Detections, Sample]],
) -> tuple[Iterator[Detections], Iterator[Sample]]:
    """Splits an iterator of pairs into two iterators.

    Read the two iterators alternately. If one is ahead, the pairs between them stay in memory.

    Args:
        pairs: The detections and the sample of each image.

    Returns:
        The detections and the samples.
    """
    left, right = itertools.tee(pairs)
    return (found for found, _ in left), (truth for _, truth in right)


def pixel_boxes(boxes: np.ndarray, image: Sample) -> np.ndarray:
    """Converts normalized boxes to pixels.

    The result is rounded to a thousandth of a pixel. This removes the rounding error of the
    division by the image size, which could otherwise decide whether an IoU reaches a threshold.

    Args:
        boxes: float [N, 4], normalized `yxyx`.
        image: The sample, for its height and width.

    Returns:
        float64 [N, 4], `yxyx` in pixels.
    """
    size = np.array([image.height, image.width] * 2, np.float64)
    return np.round(np.asarray(boxes, np.float64).reshape(-1, 4) * size, 3)


def mean_of_defined(values: Sequence[float] | np.ndarray) -> float:
    """Returns the mean of the values that are not NaN, or NaN if there are none."""
    known = [v for v in np.ravel(values) if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def none_if_nan(value: float) -> float | None:
    """Returns None for NaN, which JSON does not support, and any other value unchanged."""
    return None if math.isnan(value) else value
