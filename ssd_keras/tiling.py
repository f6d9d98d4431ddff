"""The tiling of default boxes over the feature maps (section 2.2 of the paper)."""

import math

import numpy as np

from ssd_keras.config import FeatureMap, SSDConfig
from ssd_keras.config_files import ConfigLike, as_config


def default_boxes(config: ConfigLike) -> np.ndarray:
    """All default boxes of an SSD, the same floats as the original's PriorBox layers give.

    The order is: feature map, row, column, then in each cell the small square, the large square
    (if there is one), and for every aspect ratio r the boxes of ratio r and 1/r.

    Args:
        config: The tiling: a config, its name or a `.json` file.

    Returns:
        float32 [P, 4], `yxyx`, fractions of the image; clipped only if `config.clip`.

    Source: section 2.2, equation 4; `src/caffe/layers/prior_box_layer.cpp`.
    """
    config = as_config(config)
    boxes = np.concatenate([_tile(m, config) for m in config.feature_maps])
    return np.clip(boxes, 0, 1) if config.clip else boxes


def _tile(feature_map: FeatureMap, config: SSDConfig) -> np.ndarray:
    """The default boxes of one feature map, float32 [rows * columns * boxes_per_location, 4].

    Objects cut by the border overlap many default boxes equally, and the last bit of the corners
    then decides which of them is matched. Every rounding to float32 is therefore that of the
    original: centers and sizes are floats, the corners are computed in double from them.
    """
    axes = [
        ((np.arange(cells, dtype=np.float32) + np.float32(0.5)) * np.float32(step)).astype(float)
        for cells, step in zip(feature_map.grid, feature_map.steps, strict=True)
    ]
    shapes = cell_shapes(feature_map, config.integer_sizes)
    center = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)  # [rows, columns, 2]
    center = center[:, :, None]
    corners = np.concatenate([center - shapes / 2, center + shapes / 2], axis=-1)
    return (corners / np.tile(config.input_size, 2)).astype(np.float32).reshape(-1, 4)


def cell_shapes(feature_map: FeatureMap, integer_sizes: bool) -> np.ndarray:
    """(height, width) of the default boxes of one cell, pixels, before any clipping.

    Returns:
        float64 [boxes_per_location, 2]; every value is a float32 number.
    """
    sizes = [s for s in (feature_map.min_size, feature_map.max_size) if s is not None]
    if integer_sizes:
        sizes = [int(size) for size in sizes]
    small = sizes[0]
    shapes = [(math.sqrt(small * size),) * 2 for size in sizes]
    for ratio in np.array(feature_map.aspect_ratios, np.float32):
        for r in (ratio, np.float32(1 / np.float64(ratio))):
            root = np.sqrt(r)
            shapes.append((small / root, small * root))
    return np.array(shapes, np.float32).astype(np.float64)
