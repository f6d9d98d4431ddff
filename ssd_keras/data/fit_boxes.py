"""Searches for a tiling whose default boxes match the objects of a data set.

The search is hill climbing: it changes one box size, or the aspect ratios of one map, at a time and
keeps a change that matches more objects. Clustering of shapes by IoU (Redmon and Farhadi 2017) is
not used, because it ignores the positions of the cells, does not assign the shapes to maps, and
does not limit the number of boxes. Here an object counts as matched only if the nearest cell of a
map has a default box with an IoU of at least 0.5.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ssd_keras.config import FeatureMap, SSDConfig
from ssd_keras.data.box_coverage import IOU_THRESHOLD
from ssd_keras.tiling import cell_shapes

_FACTORS = (0.7, 0.85, 0.93, 1.08, 1.18, 1.4)  # changes of a box size
_RATIOS = (1.5, 2.0, 3.0, 4.0, 6.0)  # aspect ratios to choose from
_MAX_ROUNDS = 40
_MAX_OBJECTS = 5000  # of more objects, a random sample is used


def fitted_config(
    boxes: Sequence[np.ndarray], config: SSDConfig, *, max_boxes: int | None = None
) -> SSDConfig:
    """Searches for the box sizes and aspect ratios that match most objects.

    The score of a tiling is the share of the objects whose best IoU is at least 0.5, plus the mean
    of the best IoUs. There are two searches: one begins with the given config, the other with the
    quantiles of the object sizes.

    Args:
        boxes: For each image float32 [G, 4], normalized `yxyx`, from `object_boxes`.
        config: The config to begin with. It gives the input size, the maps and their steps.
        max_boxes: Largest number of default boxes. Default: that of `config`.

    Returns:
        A config that differs in `min_size`, `max_size` and `aspect_ratios` only. It is `config`
        itself if no better one is found.

    Raises:
        ValueError: If there are no objects, or `max_boxes` is below the number of square boxes.
    """
    objects = sampled_objects(boxes, config)
    limit = config.num_default_boxes if max_boxes is None else max_boxes
    least = least_boxes(config)
    if least > limit:
        raise ValueError(
            f"max_boxes (={max_boxes}) must be at least {least}, the square boxes of all maps"
        )
    starts = [config] if config.num_default_boxes <= limit else []
    starts.append(_quantiles(objects, config, limit))
    candidates = [_climb(start, objects, limit) for start in starts]
    score, best = max(candidates, key=lambda found: found[0])
    if starts[0] is config and score <= _score(_overlaps(config, objects)):
        return config
    return best


def least_boxes(config: SSDConfig) -> int:
    """Returns the number of default boxes without aspect ratios: the squares of all maps."""
    squares = (dataclasses.replace(m, aspect_ratios=()) for m in config.feature_maps)
    return sum(math.prod(m.grid) * m.boxes_per_location for m in squares)


def nearest_iou(objects: np.ndarray, feature_map: FeatureMap, config: SSDConfig) -> np.ndarray:
    """Returns the largest IoU of each object with the default boxes of a map.

    For boxes of fixed shapes, the IoU falls with the distance of the centers on either axis. The
    default boxes of the nearest cell are therefore enough.

    Args:
        objects: float64 [N, 4], center and size (cy, cx, h, w) in pixels of the input.
        feature_map: The map.
        config: Its config.

    Returns:
        float64 [N].
    """
    steps, grid = np.array(feature_map.steps, float), np.array(feature_map.grid)
    cell = np.clip(np.floor(objects[:, :2] / steps), 0, grid - 1)
    distance = np.abs((cell + 0.5) * steps - objects[:, :2])[:, None]  # [N, 1, 2]
    shapes = cell_shapes(feature_map, config.integer_sizes)[None]  # [1, A, 2]
    size = objects[:, None, 2:]
    overlap = np.minimum((shapes + size) / 2 - distance, np.minimum(shapes, size))
    intersection = np.prod(np.maximum(overlap, 0), axis=-1)
    union = np.prod(shapes, axis=-1) + np.prod(size, axis=-1) - intersection
    return (intersection / union).max(axis=1)


def sampled_objects(boxes: Sequence[np.ndarray], config: SSDConfig) -> np.ndarray:
    """Returns at most 5000 objects as `nearest_iou` takes them.

    Args:
        boxes: For each image float32 [G, 4], normalized `yxyx`.
        config: The config; it gives the input size.

    Returns:
        float64 [N, 4], center and size (cy, cx, h, w) in pixels of the input.

    Raises:
        ValueError: If there are no objects.
    """
    corners = np.concatenate([np.zeros((0, 4)), *boxes])
    if not len(corners):
        raise ValueError("there are no objects to fit default boxes to")
    corners = corners * np.tile(config.input_size, 2)
    if len(corners) > _MAX_OBJECTS:
        corners = np.random.default_rng(0).choice(corners, _MAX_OBJECTS, replace=False)
    return np.concatenate(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1
    )


def _overlaps(config: SSDConfig, objects: np.ndarray) -> list[np.ndarray]:
    return [nearest_iou(objects, m, config) for m in config.feature_maps]


def _score(overlaps: list[np.ndarray]) -> float:
    best = np.max(overlaps, axis=0)
    return float(np.mean(best >= IOU_THRESHOLD) + np.mean(best))


def _climb(config: SSDConfig, objects: np.ndarray, limit: int) -> tuple[float, SSDConfig]:
    """Improves a config until no change raises its score; returns the score and the config."""
    overlaps = _overlaps(config, objects)
    score = _score(overlaps)
    for _ in range(_MAX_ROUNDS):
        before = score
        for maps in _changes(config):
            try:
                changed = dataclasses.replace(config, feature_maps=maps)
            except ValueError:  # the sizes do not rise
                continue
            if changed.num_default_boxes > limit:
                continue
            pairs = zip(maps, config.feature_maps, overlaps, strict=True)
            found = [o if m is old else nearest_iou(objects, m, config) for m, old, o in pairs]
            if (new := _score(found)) > score + 1e-6:
                config, overlaps, score = changed, found, new
        if score == before:
            break
    return score, config


def _changes(config: SSDConfig) -> Iterator[tuple[FeatureMap, ...]]:
    """Yields the maps of configs that differ in all sizes, in one size, or in one map's ratios."""
    maps = config.feature_maps
    sizes = [m.min_size for m in maps]
    sizes.append(maps[-1].max_size or 1.2 * sizes[-1])
    for factor in _FACTORS:
        yield from _resized(maps, [size * factor for size in sizes])
    for k, factor in itertools.product(range(len(sizes)), _FACTORS):
        yield from _resized(maps, [s * factor if i == k else s for i, s in enumerate(sizes)])
    for k, m in enumerate(maps):
        for count in range(3):
            for ratios in itertools.combinations(_RATIOS, count):
                if ratios != m.aspect_ratios:
                    changed = dataclasses.replace(m, aspect_ratios=ratios)
                    yield (*maps[:k], changed, *maps[k + 1 :])


def _resized(
    maps: Sequence[FeatureMap], sizes: Sequence[float]
) -> Iterator[tuple[FeatureMap, ...]]:
    """Yields the maps with the given box sizes in whole pixels, or nothing if they do not rise.

    A map without a larger square stays without one.
    """
    whole = [max(1, round(size)) for size in sizes]
    if all(small < large for small, large in itertools.pairwise(whole)):
        yield tuple(
            m
            if (m.min_size, m.max_size) == (small, m.max_size and large)
            else dataclasses.replace(m, min_size=small, max_size=m.max_size and large)
            for m, (small, large) in zip(maps, itertools.pairwise(whole), strict=True)
        )


def _quantiles(objects: np.ndarray, config: SSDConfig, limit: int) -> SSDConfig:
    """Returns the config with box sizes at the quantiles of the object sizes."""
    count = len(config.feature_maps) + 1
    sizes = np.quantile(np.sqrt(np.prod(objects[:, 2:], axis=1)), np.linspace(0.05, 0.98, count))
    whole = [max(1, round(float(sizes[0])))]
    for size in sizes[1:]:
        whole.append(max(whole[-1] + 1, round(float(size))))
    maps = next(_resized(config.feature_maps, whole))
    changed = dataclasses.replace(config, feature_maps=maps)
    if changed.num_default_boxes > limit:
        maps = tuple(dataclasses.replace(m, aspect_ratios=()) for m in maps)
        changed = dataclasses.replace(config, feature_maps=maps)
    return changed
