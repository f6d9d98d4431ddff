"""The tiling of default boxes over the feature maps (section 2.2 of the paper)."""

import itertools
import math

import numpy as np

from ssd_keras.config import FeatureMap, SSDConfig


def default_boxes(config: SSDConfig) -> np.ndarray:
    """All default boxes of an SSD, in the order of the original's PriorBox layers.

    The order is: feature map, row, column, then in each cell the small square, the large square
    (if there is one), and for every aspect ratio r the boxes of ratio r and 1/r.

    Args:
        config: The tiling.

    Returns:
        float32 [P, 4], `cyxhw`, fractions of the image; clipped only if `config.clip`.

    Source: section 2.2, equation 4; `src/caffe/layers/prior_box_layer.cpp`.
    """
    boxes = np.concatenate([_tile(m, config) for m in config.feature_maps])
    if config.clip:
        low = np.clip(boxes[:, :2] - boxes[:, 2:] / 2, 0, 1)
        high = np.clip(boxes[:, :2] + boxes[:, 2:] / 2, 0, 1)
        boxes = np.concatenate([(low + high) / 2, high - low], axis=1)
    return boxes.astype(np.float32)


def _tile(feature_map: FeatureMap, config: SSDConfig) -> np.ndarray:
    """The default boxes of one feature map, float64 [size * size * boxes_per_location, 4]."""
    centres = (np.arange(feature_map.size) + 0.5) * feature_map.step
    shapes = cell_shapes(feature_map, config.integer_sizes)
    boxes = [(cy, cx, h, w) for cy, cx, (h, w) in itertools.product(centres, centres, shapes)]
    return np.array(boxes) / config.image_size


def cell_shapes(feature_map: FeatureMap, integer_sizes: bool) -> list[tuple[float, float]]:
    """(height, width) in pixels of the default boxes of one cell, before any clipping."""
    sizes = [s for s in (feature_map.min_size, feature_map.max_size) if s is not None]
    if integer_sizes:
        sizes = [int(size) for size in sizes]
    small = sizes[0]
    shapes = [(math.sqrt(small * size),) * 2 for size in sizes]
    for ratio in feature_map.aspect_ratios:
        root = math.sqrt(ratio)
        shapes += [(small / root, small * root), (small * root, small / root)]
    return shapes
