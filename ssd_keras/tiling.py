"""The tiling of default boxes over the feature maps (section 2.2 of the paper)."""

import math

import numpy as np

from ssd_keras.config import FeatureMap, SSDConfig
from ssd_keras.config_files import ConfigLike, as_config


def default_boxes(config: ConfigLike) -> np.ndarray:
    """Computes all default boxes of an SSD.

    The values equal those of the original's PriorBox layers bit for bit. The boxes are ordered by
    feature map, row and column. The order in a cell is: the small square, the large square if there
    is one, then the boxes of ratio r and 1/r for each aspect ratio r.

    Args:
        config: A config, its name or a `.json` file.

    Returns:
        float32 [P, 4], `yxyx`, fractions of the image; clipped only if `config.clip` is True.

    Raises:
        FileNotFoundError, TypeError, ValueError: If `as_config` refuses `config`.

    Source: section 2.2, equation 4; `src/caffe/layers/prior_box_layer.cpp`.
    """
    config = as_config(config)
    boxes = np.concatenate([_tile(m, config) for m in config.feature_maps])
    return np.clip(boxes, 0, 1) if config.clip else boxes


def _tile(feature_map: FeatureMap, config: SSDConfig) -> np.ndarray:
    """Returns the default boxes of a feature map, float32 [rows * columns * boxes_per_location, 4].

    An object at the border of the image may have nearly the same IoU with many default boxes. Then
    the last bit of the corners decides which of them is matched. The function therefore rounds to
    float32 where the original does: centers and sizes are float32, and the corners are computed
    from them in float64.
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
    """Computes the shapes of the default boxes of one cell, before any clipping.

    Args:
        feature_map: The feature map.
        integer_sizes: Whether to truncate `min_size` and `max_size` to whole pixels.

    Returns:
        float64 [boxes_per_location, 2], (height, width) in pixels. The values are rounded to
        float32, as in the original.

    Source: section 2.2; `src/caffe/layers/prior_box_layer.cpp`.
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
