"""Measures how well the default boxes of a config match the objects of record sets.

The objects are taken as the loss gets them: after the image is resized to the input of the network,
or after the training augmentation. No image is decoded.
"""

import dataclasses
import itertools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ssd_keras.augmentation.ops import Op, decide, visible_objects
from ssd_keras.boxes import pairwise_iou
from ssd_keras.config import SSDConfig
from ssd_keras.data.card import read_card
from ssd_keras.data.records import parse_example, shard_paths
from ssd_keras.matching import match
from ssd_keras.tiling import cell_shapes, default_boxes

IOU_THRESHOLD = 0.5
# Limits of the rows in the tables: sqrt(height * width) in pixels of the input, and width / height.
SIZE_LIMITS = (8, 16, 32, 64, 128, 256)
SHAPE_LIMITS = (1 / 3, 1 / 2, 1, 2, 3)


@dataclasses.dataclass(frozen=True, slots=True)
class BoxShape:
    """The default boxes of one size and shape: one for each cell of a map.

    Attributes:
        feature_map: Name of the map.
        height: Height in pixels of the input.
        width: Width in pixels of the input.
        count: Number of cells.
    """

    feature_map: str
    height: float
    width: float
    count: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """Objects, and the default boxes that are matched to them. N is the number of objects.

    Attributes:
        sizes: float32 [N, 2], height and width of each object in pixels of the input.
        best_iou: float32 [N], largest IoU of each object with a default box.
        by_threshold: int32 [N], number of default boxes that are matched to each object with an IoU
            of at least 0.5.
        positives: int32 [N], number of all default boxes that are matched to each object.
        shapes: Shapes of the default boxes of a cell, map by map.
        matches: int [len(shapes)], number of default boxes of each shape that are matched.
    """

    sizes: np.ndarray
    best_iou: np.ndarray
    by_threshold: np.ndarray
    positives: np.ndarray
    shapes: tuple[BoxShape, ...]
    matches: np.ndarray

    @property
    def share(self) -> float:
        """Share of the objects with a match of IoU 0.5 or more; NaN if there are no objects."""
        return float(np.mean(self.by_threshold > 0)) if len(self.sizes) else float("nan")


def object_boxes(
    records: Sequence[str | os.PathLike[str]],
    ops: tuple[Op, ...] = (),
    *,
    seed: int = 0,
    draws: int = 1,
    limit: int | None = None,
) -> list[np.ndarray]:
    """Reads the boxes of the objects of record sets, as they are in the input of the network.

    Args:
        records: Directories of the record sets.
        ops: Augmentation ops. Without ops the image is only resized to the input size.
        seed: Seed of the augmentation.
        draws: Number of times that each image is augmented.
        limit: Largest number of images of all sets; None for all images.

    Returns:
        For each draw of each image float32 [G, 4], normalized `yxyx`.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If a data card or a shard is damaged; see `read_card`.
    """
    paths = [path for directory in records for path in shard_paths(directory)]
    images = sum(read_card(directory).num_images for directory in records)
    images = images if limit is None else min(images, limit)
    dataset = tf.data.TFRecordDataset(paths).take(images).repeat(draws).enumerate()

    @tf.autograph.experimental.do_not_convert
    def boxes(index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        sample = parse_example(serialized)
        view = decide(sample, tf.stack([tf.cast(seed, tf.int64), index]), ops)
        return visible_objects(sample, view)["boxes"]

    return list(dataset.map(boxes, num_parallel_calls=tf.data.AUTOTUNE).as_numpy_iterator())


def coverage(boxes: Sequence[np.ndarray], config: SSDConfig) -> Coverage:
    """Matches default boxes to objects as the loss does.

    Args:
        boxes: For each image float32 [G, 4], normalized `yxyx`.
        config: The tiling.

    Returns:
        The matches.
    """
    defaults = tf.constant(default_boxes(config))
    shapes: list[BoxShape] = []
    kinds = []  # for each default box the index of its shape
    for m in config.feature_maps:
        cells, first = m.grid[0] * m.grid[1], len(shapes)
        for height, width in cell_shapes(m, config.integer_sizes).tolist():
            shapes.append(BoxShape(m.name, height, width, cells))
        kinds.append(np.tile(np.arange(first, len(shapes), dtype=np.int32), cells))
    kind = np.concatenate(kinds)

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)], autograph=False)
    def match_image(objects: tf.Tensor) -> tuple[tf.Tensor, ...]:
        truth = tf.pad(objects, [[0, 0], [0, 1]], constant_values=1)
        matched = match(truth[None], defaults, IOU_THRESHOLD)[0]  # [P]
        iou = pairwise_iou(objects, defaults)  # [G, P]
        own = matched[None] == tf.range(tf.shape(objects)[0])[:, None]
        near = own & (iou >= IOU_THRESHOLD)
        counts = [tf.reduce_sum(tf.cast(mask, tf.int32), axis=1) for mask in (near, own)]
        used = tf.math.bincount(
            tf.boolean_mask(kind, matched >= 0), minlength=len(shapes), maxlength=len(shapes)
        )
        return tf.reduce_max(iou, axis=1), *counts, used

    found = [match_image(b) for b in boxes if len(b)]
    columns = [np.concatenate([f[k] for f in found]) if found else np.zeros(0) for k in range(3)]
    corners = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    return Coverage(
        sizes=(corners[:, 2:] - corners[:, :2]) * np.array(config.input_size, np.float32),
        best_iou=columns[0],
        by_threshold=columns[1].astype(np.int32),
        positives=columns[2].astype(np.int32),
        shapes=tuple(shapes),
        matches=np.sum([f[3] for f in found], axis=0) if found else np.zeros(len(shapes), int),
    )


def coverage_table(found: Coverage) -> str:
    """Formats a coverage as text: objects by size and by shape, and matches by default box.

    Args:
        found: From `coverage`.
    """
    side = np.sqrt(np.prod(found.sizes, axis=1))
    shape = found.sizes[:, 1] / np.maximum(found.sizes[:, 0], 1e-9)
    lines = [f"{'objects':24}{'number':>8}{'IoU 0.5':>9}{'nearest':>9}{'none':>7}{'positives':>11}"]
    lines.append(_row("all", found, np.ones(len(side), bool)))
    for title, values, limits in (
        ("side {} px", side, SIZE_LIMITS),
        ("width / height {}", shape, SHAPE_LIMITS),
    ):
        for low, high in itertools.pairwise([0, *limits, np.inf]):
            mask = (values >= low) & (values < high)
            if mask.any():
                span = f"{low:.3g} to {high:.3g}" if np.isfinite(high) else f"from {low:.3g}"
                lines.append(_row(title.format(span), found, mask))
    lines += ["", f"{'default boxes':24}{'number':>8}{'matched':>9}{'per 100 objects':>17}"]
    for box, matches in zip(found.shapes, found.matches, strict=True):
        name = f"{box.feature_map} {box.width:.0f} x {box.height:.0f}"
        share = 100 * matches / max(len(side), 1)
        lines.append(f"{name:24}{box.count:>8}{matches:>9}{share:>17.1f}")
    return "\n".join(lines)


def _row(name: str, found: Coverage, mask: np.ndarray) -> str:
    """Formats one row for the objects of a mask.

    Its shares are the objects that are matched by the IoU threshold, those that are matched only as
    the best pair (step 1 of `match`), and those that are not matched.
    """
    total = max(int(mask.sum()), 1)
    near, matched = found.by_threshold[mask] > 0, found.positives[mask] > 0
    groups = zip((near, matched & ~near, ~matched), (9, 9, 7), strict=True)
    cells = "".join(f"{100 * group.sum() / total:>{width - 1}.1f}%" for group, width in groups)
    return f"{name:24}{mask.sum():>8}{cells}{found.positives[mask].sum() / total:>11.1f}"
