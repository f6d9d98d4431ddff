"""Crop, canvas, mirror and warp as one banded matrix per axis.

All of them are linear and separable, so the picture the network sees is `rows @ image @ columns^T`
plus the fill colour where the image does not reach; a canvas is never built. The matrices are
banded: a block of neighbouring output pixels reads a short run of input pixels, its band. The
five interpolations are those of `cv::resize`, which the original calls (half-pixel centres, no
antialiasing, edges replicated), except that OpenCV weighs with 11-bit integers.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf

INTERPOLATIONS = ("linear", "area", "nearest", "cubic", "lanczos4")
LINEAR = INTERPOLATIONS.index("linear")

_REACH = 4  # pixels that the widest kernel, Lanczos, reads on either side
_LARGEST_BLOCK = 32  # output pixels


class AxisMap(NamedTuple):
    """One axis of a resampling, for N blocks of R output pixels that read K input pixels each.

    Attributes:
        pixels: int32 [N, K], which pixels of the decoded image.
        weights: float32 [N, R, K]; 0 for pixels outside the image.
    """

    pixels: Any
    weights: Any


def axis_maps(
    window: Any, offset: Any, visible: Any, mirror: Any, interpolation: Any, size: int
) -> tuple[AxisMap, AxisMap]:
    """Maps of the vertical and the horizontal axis.

    Args:
        window: int32 [4] (top, left, height, width), the crop, canvas pixels.
        offset: int32 [2] (y, x), the image's top left corner, canvas pixels.
        visible: int32 [4] (top, left, height, width), the decoded part, image pixels.
        mirror: bool scalar, flips the horizontal axis.
        interpolation: int32 scalar, an index of `INTERPOLATIONS`.
        size: S, pixels of the output's side.
    """
    block = max(d for d in range(1, _LARGEST_BLOCK + 1) if size % d == 0)
    # As OpenCV computes it: where cell * scale is a whole number, the rounding picks the pixel.
    inverse = tf.reshape(size / tf.cast(window[2:], tf.float64), [2, 1, 1, 1])
    scale = 1 / inverse
    cell = tf.reshape(tf.range(size, dtype=tf.float64), [1, -1, block, 1])
    cell = tf.concat([cell, tf.where(mirror, size - 1 - cell, cell)], 0)  # [2, N, R, 1]
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


def resample(planes: Any, rows: AxisMap, columns: AxisMap, size: int, fill: Any) -> Any:
    """Resamples R, G and B planes float32 [H, W] to an image uint8 [S, S, 3].

    What lies outside the image is `fill`, a triple: it is made zero for the while.
    """
    image = tf.concat([plane - level for plane, level in zip(planes, fill, strict=True)], axis=1)
    image = tf.matmul(rows.weights, tf.gather(image, rows.pixels))
    image = tf.transpose(tf.reshape(image, [3 * size, -1]))  # [W, S * 3]
    image = tf.matmul(columns.weights, tf.gather(image, columns.pixels))
    image = tf.reshape(image, [size, size * 3]) + tf.tile(tf.constant(fill), [size])
    image = tf.saturate_cast(tf.round(image), tf.uint8)
    return tf.transpose(tf.reshape(image, [size, size, 3]), [1, 0, 2])


def _per_axis(pair: Any) -> Any:
    return tf.reshape(pair, [2, 1, 1])


def _weights(tap: Any, cell: Any, inverse: Any, interpolation: Any) -> Any:
    """How much each tap gives to each cell, float32 [2, N, R, K]; not yet normalised."""
    scale = 1 / inverse
    centre = (cell + 0.5) * scale - 0.5
    distance = tf.cast(tf.abs(tap - centre), tf.float32)
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


def _area(tap: Any, cell: Any, inverse: Any, corner: Any) -> Any:
    """Overlap of taps with the cell, [2, N, R, K].

    As in OpenCV, only of two taps unless both axes shrink.
    """
    scale = 1 / inverse
    overlap = tf.minimum(tap + 1, (cell + 1) * scale) - tf.maximum(tap, cell * scale)
    beyond = tf.maximum(cell + 1 - (corner + 1) * inverse, 0)
    beyond -= tf.floor(beyond)
    two = tf.where(
        tf.equal(tap, corner), 1 - beyond, tf.where(tf.equal(tap, corner + 1), beyond, 0)
    )
    return tf.where(tf.reduce_all(scale >= 1), tf.maximum(overlap, 0), two)


def _cubic(x: Any, a: float = -0.75) -> Any:
    """Keys' kernel at the distances `x` [2, N, R, K]."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return tf.where(x <= 1, near, tf.where(x < 2, far, 0.0))


def _lanczos4(x: Any) -> Any:
    """Lanczos' kernel of 4 lobes at the distances `x` [2, N, R, K], but for a factor."""
    kernel = tf.sin(math.pi * x) * tf.sin(math.pi / 4 * x) / tf.maximum(x * x, 1e-12)
    return tf.where(x < 1e-6, math.pi**2 / 4, tf.where(x < 4, kernel, 0.0))
