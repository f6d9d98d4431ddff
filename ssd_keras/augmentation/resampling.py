"""Crop, expansion, mirroring and resizing as one banded matrix for each axis.

All four are linear and separable. The result is therefore `rows @ image @ columns^T`, plus the fill
color outside the image, and a canvas is never built. The matrices are banded: a block of
neighboring output pixels reads a short range of input pixels, its band.

The five interpolations are those of `cv::resize`, which the original calls: half-pixel centers, no
antialiasing, replicated edges. OpenCV has weights of 11-bit integers; the weights here are float32.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

INTERPOLATIONS = ("linear", "area", "nearest", "cubic", "lanczos4")
LINEAR = INTERPOLATIONS.index("linear")

_REACH = 4  # input pixels on either side that the widest kernel, Lanczos, reads
_LARGEST_BLOCK = 32  # output pixels


class AxisMap(NamedTuple):
    """The banded matrix of one axis: N blocks of R output pixels that read K input pixels each.

    Attributes:
        pixels: int32 [N, K], indices of pixels in the decoded part of the image.
        weights: float32 [N, R, K], 0 for pixels outside the image.
    """

    pixels: tf.Tensor
    weights: tf.Tensor


def axis_maps(
    window: tf.Tensor,
    offset: tf.Tensor,
    visible: tf.Tensor,
    mirror: tf.Tensor,
    interpolation: tf.Tensor,
    size: tuple[int, int],
) -> tuple[AxisMap, AxisMap]:
    """Returns the maps of the vertical and the horizontal axis.

    Args:
        window: int32 [4], (top, left, height, width) of the crop in canvas pixels.
        offset: int32 [2], (y, x) of the image's top left corner in canvas pixels.
        visible: int32 [4], (top, left, height, width) of the decoded part in image pixels.
        mirror: bool scalar, whether the horizontal axis is mirrored.
        interpolation: int32 scalar, an index of `INTERPOLATIONS`.
        size: (height, width) of the result in pixels.

    Source: `cv::resize` of OpenCV, which the original calls.
    """
    window, offset, visible = (tf.convert_to_tensor(x) for x in (window, offset, visible))
    both = [_maps(window, offset, visible, mirror, interpolation, size, n) for n in {*size}]
    maps = dict(zip({*size}, both, strict=True))  # a square needs one computation for both axes
    return maps[size[0]][0], maps[size[1]][1]


def _maps(
    window: tf.Tensor,
    offset: tf.Tensor,
    visible: tf.Tensor,
    mirror: tf.Tensor,
    interpolation: tf.Tensor,
    size: tuple[int, int],
    side: int,
) -> tuple[AxisMap, AxisMap]:
    """Returns the maps of both axes. Only the map of an axis with `side` output pixels is valid."""
    block = max(d for d in range(1, _LARGEST_BLOCK + 1) if side % d == 0)
    # The arithmetic is OpenCV's: if cell * scale is a whole number, its rounding picks the pixel.
    inverse = np.array(size, np.float64) / tf.cast(window[2:], tf.float64)
    inverse = tf.reshape(inverse, [2, 1, 1, 1])
    scale = 1 / inverse
    cell = tf.reshape(tf.range(side, dtype=tf.float64), [1, -1, block, 1])
    cell = tf.concat([cell, tf.where(mirror, side - 1 - cell, cell)], 0)  # [2, N, R, 1]
    start = tf.floor(tf.reduce_min(cell, axis=2, keepdims=True) * scale) - _REACH
    band = tf.cast(tf.math.ceil(tf.reduce_max(scale) * block), tf.int32) + 2 * _REACH + 1
    tap = start + tf.range(band, dtype=tf.float64)  # [2, N, 1, K], pixels of the crop
    weights = _weights(tap, cell, inverse, interpolation)
    weights /= tf.reduce_sum(weights, axis=-1, keepdims=True)

    pixels = tf.cast(tap[:, :, 0], tf.int32)
    pixels = tf.clip_by_value(pixels, 0, _per_axis(window[2:] - 1))  # replicates the crop's edges
    pixels += _per_axis(window[:2] - offset - visible[:2])
    end = _per_axis(visible[2:])
    seen = (pixels >= 0) & (pixels < end)
    weights = tf.where(seen[:, :, None], weights, 0.0)
    pixels = tf.clip_by_value(pixels, 0, end - 1)
    return AxisMap(pixels[0], weights[0]), AxisMap(pixels[1], weights[1])


def resample(
    planes: Sequence[tf.Tensor],
    rows: AxisMap,
    columns: AxisMap,
    size: tuple[int, int],
    fill: tuple[float, ...],
) -> tf.Tensor:
    """Resamples the decoded part of an image to the size of the result.

    Args:
        planes: R, G and B, each float32 [H, W], 0..255.
        rows: Map of the vertical axis.
        columns: Map of the horizontal axis.
        size: (height, width) of the result in pixels.
        fill: RGB levels, 0..255, of pixels outside the image.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    height, width = size
    # Weights outside the image are 0, so `fill` is subtracted first and added at the end.
    image = tf.concat([plane - level for plane, level in zip(planes, fill, strict=True)], axis=1)
    image = tf.matmul(rows.weights, tf.gather(image, rows.pixels))
    image = tf.transpose(tf.reshape(image, [3 * height, -1]))  # [W, height * 3]
    image = tf.matmul(columns.weights, tf.gather(image, columns.pixels))
    image = tf.reshape(image, [width, height * 3]) + tf.tile(tf.constant(fill), [height])
    image = tf.saturate_cast(tf.round(image), tf.uint8)
    return tf.transpose(tf.reshape(image, [width, height, 3]), [1, 0, 2])


def _per_axis(pair: tf.Tensor) -> tf.Tensor:
    return tf.reshape(pair, [2, 1, 1])


def _weights(
    tap: tf.Tensor, cell: tf.Tensor, inverse: tf.Tensor, interpolation: tf.Tensor
) -> tf.Tensor:
    """Returns the weight of each input pixel in each output pixel, before normalization.

    Args:
        tap: float64 [2, N, 1, K], input pixels.
        cell: float64 [2, N, R, 1], output pixels.
        inverse: float64 [2, 1, 1, 1], output pixels for each input pixel.
        interpolation: int32 scalar, an index of `INTERPOLATIONS`.

    Returns:
        float32 [2, N, R, K].
    """
    scale = 1 / inverse
    center = (cell + 0.5) * scale - 0.5
    distance = tf.cast(tf.abs(tap - center), tf.float32)
    corner = tf.floor(cell * scale)
    return tf.switch_case(
        interpolation,
        [
            lambda: tf.maximum(1.0 - distance, 0.0),
            lambda: tf.cast(_area(tap, cell, inverse, corner), tf.float32),
            lambda: tf.cast(tf.equal(tap, corner), tf.float32),
            lambda: _cubic(distance),
            lambda: _lanczos4(distance),
        ],
    )


def _area(tap: tf.Tensor, cell: tf.Tensor, inverse: tf.Tensor, corner: tf.Tensor) -> tf.Tensor:
    """Returns the overlaps of input pixels with output pixels, float64 [2, N, R, K].

    As in OpenCV, only two input pixels have a weight unless both axes shrink.
    """
    scale = 1 / inverse
    overlap = tf.minimum(tap + 1, (cell + 1) * scale) - tf.maximum(tap, cell * scale)
    beyond = tf.maximum(cell + 1 - (corner + 1) * inverse, 0)
    beyond -= tf.floor(beyond)
    two = tf.where(
        tf.equal(tap, corner), 1 - beyond, tf.where(tf.equal(tap, corner + 1), beyond, 0)
    )
    return tf.where(tf.reduce_all(scale >= 1), tf.maximum(overlap, 0), two)


def _cubic(x: tf.Tensor, a: float = -0.75) -> tf.Tensor:
    """Computes Keys' cubic kernel at the distances `x`, float32 [2, N, R, K]."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return tf.where(x <= 1, near, tf.where(x < 2, far, 0.0))


def _lanczos4(x: tf.Tensor) -> tf.Tensor:
    """Computes a multiple of the Lanczos kernel of 4 lobes at `x`, float32 [2, N, R, K]."""
    kernel = tf.sin(math.pi * x) * tf.sin(math.pi / 4 * x) / tf.maximum(x * x, 1e-12)
    return tf.where(x < 1e-6, math.pi**2 / 4, tf.where(x < 4, kernel, 0.0))
