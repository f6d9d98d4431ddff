"""Detects on the tiles of large images with small objects, and merges the detections."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ssd_keras.detections import IOU_THRESHOLD, MAX_DETECTIONS, Detections
from ssd_keras.images import decode_image
from ssd_keras.inference.detector import Detector

# A box counts as cut if one of its edges is this close to a tile border inside the image, as a
# fraction of the tile.
_BORDER = 0.01
# A cut box is removed if its intersection with a kept box is at least this fraction of the smaller
# of the two.
_CUT_OVERLAP = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Tiles:
    """How an image is divided into tiles.

    Attributes:
        rows: Number of rows, or 0 if `side` is given.
        columns: Number of columns, or 0 if `side` is given.
        side: Side of a tile in pixels, or 0 if `rows` and `columns` are given.
        overlap: Overlap of neighboring tiles, as a fraction of a tile, in [0, 0.9].
    """

    rows: int = 0
    columns: int = 0
    side: int = 0
    overlap: float = 0.2

    def boxes(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Returns the tiles of an image as (ymin, xmin, ymax, xmax) in pixels.

        An image that is smaller than a tile has one tile, the image itself.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
        """
        return [
            (y0, x0, y1, x1)
            for y0, y1 in self._spans(height, self.rows)
            for x0, x1 in self._spans(width, self.columns)
        ]

    def _spans(self, length: int, count: int) -> list[tuple[int, int]]:
        if self.side:
            side = min(self.side, length)
            step = max(1, round(side * (1 - self.overlap)))
            count = 1 + -(-(length - side) // step)
        else:
            # `count` tiles with the given overlap cover the length.
            side = max(1, round(length / (count - (count - 1) * self.overlap)))
        starts = np.linspace(0, length - side, count).round().astype(int).tolist()
        return [(start, start + side) for start in dict.fromkeys(starts)]


def parse_tiles(text: str, overlap: float = 0.2) -> Tiles:
    """Parses "2x3" (rows x columns) or "640" (side of a tile in pixels).

    Args:
        text: The tiles.
        overlap: Overlap of neighboring tiles, as a fraction of a tile, in [0, 0.9].

    Returns:
        The tiles.

    Raises:
        ValueError: If the text has another form, a number is 0, or `overlap` is out of range.
    """
    if not 0 <= overlap <= 0.9:
        raise ValueError(f"overlap (={overlap}) must be in [0, 0.9]")
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if not re.fullmatch(r"\d+(x\d+)?", text) or 0 in numbers:
        raise ValueError(
            f"tiles (={text!r}) must be rows x columns, such as 2x2, or the side of a tile in "
            "pixels, such as 640"
        )
    if len(numbers) == 1:
        return Tiles(side=numbers[0], overlap=overlap)
    return Tiles(rows=numbers[0], columns=numbers[1], overlap=overlap)


def tiled_detector(detector: Detector, tiles: Tiles, batch_size: int = 8) -> Detector:
    """Returns a detector that runs another detector on the whole image and on its tiles.

    All detections of an image are merged by one suppression; see `merge_tiles`.

    Args:
        detector: The detector to run.
        tiles: The tiles.
        batch_size: Tiles per batch.

    Returns:
        The new detector.
    """

    def run_pixels(images: Sequence[np.ndarray]) -> list[Detections]:
        return [_detect_tiled(detector, image, tiles, batch_size) for image in images]

    def run(encoded: tf.Tensor) -> dict[str, np.ndarray]:
        images = [decode_image(image, detector.max_pixels).numpy() for image in encoded]
        return _padded(run_pixels(images))

    return Detector(detector.labels, run, detector.config, run_pixels, detector.max_pixels)


def merge_tiles(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    cut: np.ndarray,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
) -> np.ndarray:
    """Applies suppression for each class to the detections of all tiles of an image.

    Boxes that the border of a tile cuts are processed after all other boxes; both groups are
    processed in descending order of score. A box is removed if its IoU with a kept box is above
    `iou_threshold`. A cut box is also removed if its intersection with a kept box is at least half
    of the smaller of the two.

    Args:
        boxes: [N, 4], `yxyx`, in one coordinate system for all tiles.
        scores: [N].
        classes: int [N].
        cut: bool [N], whether a tile border inside the image cuts the box.
        iou_threshold: IoU threshold of suppression.
        max_detections: Maximum number of detections.

    Returns:
        The indices of the kept detections, int [M], in descending order of score.
    """
    kept: list[int] = []
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    for k in np.lexsort((-scores, cut)):
        others = np.array([j for j in kept if classes[j] == classes[k]], int)
        low = np.maximum(boxes[k, :2], boxes[others, :2])
        high = np.minimum(boxes[k, 2:], boxes[others, 2:])
        overlap = np.prod(np.maximum(high - low, 0), axis=1)
        union = areas[k] + areas[others] - overlap
        smaller = np.minimum(areas[k], areas[others])
        if (overlap > iou_threshold * union).any():
            continue
        if cut[k] and (overlap >= _CUT_OVERLAP * smaller)[smaller > 0].any():
            continue
        kept.append(int(k))
    order = np.array(kept, int)
    return order[np.argsort(-scores[order], kind="stable")][:max_detections]


def _detect_tiled(
    detector: Detector, image: np.ndarray, tiles: Tiles, batch_size: int
) -> Detections:
    height, width = image.shape[:2]
    whole = (0, 0, height, width)
    parts = list(dict.fromkeys([whole, *tiles.boxes(height, width)]))
    found: list[Detections] = []
    for start in range(0, len(parts), batch_size):
        batch = parts[start : start + batch_size]
        found += detector.detect_pixels([image[y0:y1, x0:x1] for y0, x0, y1, x1 in batch])
    size = np.array([height, width] * 2)
    boxes, cut = [], []
    for (y0, x0, y1, x1), part in zip(parts, found, strict=True):
        side = np.array([y1 - y0, x1 - x0] * 2)
        boxes.append((part["boxes"] * side + (y0, x0, y0, x0)) / size)
        inner = np.array([y0 > 0, x0 > 0, y1 < height, x1 < width])
        near = np.abs(part["boxes"] - (0, 0, 1, 1)) <= _BORDER
        cut.append((near & inner).any(axis=1))
    columns = {name: np.concatenate([p[name] for p in found]) for name in ("scores", "classes")}
    columns["boxes"] = np.concatenate(boxes).astype(np.float32)
    kept = merge_tiles(columns["boxes"], columns["scores"], columns["classes"], np.concatenate(cut))
    return {name: values[kept] for name, values in columns.items()}


def _padded(found: list[Detections]) -> dict[str, np.ndarray]:
    """Joins the detections of several images, padded with zeros."""
    numbers = np.array([len(f["scores"]) for f in found])

    def stack(name: str) -> np.ndarray:
        rows = zip(found, numbers.max(initial=0) - numbers, strict=True)
        return np.stack(
            [np.pad(f[name], [(0, n)] + [(0, 0)] * (f[name].ndim - 1)) for f, n in rows]
        )

    columns = {name: stack(name) for name in ("boxes", "scores", "classes")}
    return columns | {"num_detections": numbers}
