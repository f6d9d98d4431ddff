"""Photometric distortion on 8-bit levels and in OpenCV's 8-bit HSV, as in the original.

The source is `src/caffe/util/im_transforms.cpp` of the original code (`ApplyDistort`). An image is
held as three planes, float32 [H, W] of whole numbers 0..255. Every op rounds and saturates its
result as the conversion to uint8 does in OpenCV.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

BRIGHTNESS_DELTA = 32.0  # levels
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18.0  # in units of 2 degrees, the unit of OpenCV's 8-bit hue

# The planes of an image, R, G and B or H, S and V, each float32 [H, W] of whole numbers.
Planes = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class Distortion(NamedTuple):
    """The parameters of one photometric distortion.

    The amounts of ops that are not applied are drawn, too.

    Attributes:
        contrast_first: bool scalar. If true, contrast is changed directly after brightness,
            otherwise after all other ops.
        applied: bool [4], whether brightness, contrast, saturation and hue are changed.
        brightness: float32 scalar, added to R, G and B, in levels.
        contrast: float32 scalar, factor of R, G and B.
        saturation: float32 scalar, factor of S.
        hue: float32 scalar, added to H, in units of 2 degrees.
    """

    contrast_first: tf.Tensor
    applied: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor


def draw_distortion(seed: tf.Tensor) -> Distortion:
    """Draws the parameters of a distortion.

    Each op is applied with probability 0.5. Both orders of the ops have probability 0.5.

    Args:
        seed: int [2].

    Returns:
        The parameters.
    """
    u = tf.random.stateless_uniform([9], seed)

    def between(value: tf.Tensor, low: float, high: float) -> tf.Tensor:
        return low + (high - low) * value

    return Distortion(
        contrast_first=u[0] > 0.5,
        applied=u[1:5] < 0.5,
        brightness=between(u[5], -BRIGHTNESS_DELTA, BRIGHTNESS_DELTA),
        contrast=between(u[6], *CONTRAST_RANGE),
        saturation=between(u[7], *SATURATION_RANGE),
        hue=between(u[8], -HUE_DELTA, HUE_DELTA),
    )


def distort(planes: Planes, d: Distortion) -> Planes:
    """Distorts an image.

    Args:
        planes: R, G and B, each float32 [H, W] of whole numbers 0..255.
        d: The parameters.

    Returns:
        Planes of the same shapes, dtype and range.
    """
    brightness, contrast, saturation, hue = tf.unstack(d.applied)
    planes = _maybe(brightness, lambda p: adjust_brightness(p, d.brightness), planes)
    planes = _maybe(contrast & d.contrast_first, lambda p: adjust_contrast(p, d.contrast), planes)
    planes = _maybe(saturation, lambda p: adjust_saturation(p, d.saturation), planes)
    planes = _maybe(hue, lambda p: adjust_hue(p, d.hue), planes)
    return _maybe(contrast & ~d.contrast_first, lambda p: adjust_contrast(p, d.contrast), planes)


def adjust_brightness(planes: Planes, delta: tf.Tensor) -> Planes:
    """Adds `delta`, a float32 scalar in levels, to R, G and B planes."""
    return tuple(_saturate(p + delta) for p in planes)


def adjust_contrast(planes: Planes, factor: tf.Tensor) -> Planes:
    """Multiplies R, G and B planes by `factor`, a float32 scalar."""
    return tuple(_saturate(p * factor) for p in planes)


def adjust_saturation(planes: Planes, factor: tf.Tensor) -> Planes:
    """Multiplies the saturation of R, G and B planes by `factor`, in 8-bit HSV.

    `factor` is a float32 scalar.
    """
    h, s, v = rgb_to_hsv8(planes)
    return hsv8_to_rgb((h, _saturate(s * factor), v))


def adjust_hue(planes: Planes, delta: tf.Tensor) -> Planes:
    """Adds `delta` to the hue of R, G and B planes, in 8-bit HSV.

    `delta` is a float32 scalar in units of 2 degrees.

    In the original the sum is a uint8. A sum below 0 therefore becomes 0, which is red. A sum of
    180 or more wraps around in the conversion to RGB.
    """
    h, s, v = rgb_to_hsv8(planes)
    return hsv8_to_rgb((_saturate(h + delta), s, v))


def rgb_to_hsv8(planes: Planes) -> Planes:
    """Converts R, G and B planes to OpenCV's 8-bit HSV.

    Args:
        planes: R, G and B, each float32 [H, W], 0..255.

    Returns:
        H, 0..179 in units of 2 degrees, and S and V, 0..255, each float32 [H, W] of whole numbers.
    """
    r, g, b = planes
    v = tf.maximum(tf.maximum(r, g), b)
    chroma = v - tf.minimum(tf.minimum(r, g), b)
    sector = tf.where(
        tf.equal(v, r), g - b, tf.where(tf.equal(v, g), b - r + 2 * chroma, r - g + 4 * chroma)
    )
    h = tf.floor(sector * (30.0 / tf.maximum(chroma, 1.0)) + 0.5)
    s = tf.floor(chroma * (255.0 / tf.maximum(v, 1.0)) + 0.5)
    return tf.where(h < 0, h + 180.0, h), s, v


def hsv8_to_rgb(hsv: Planes) -> Planes:
    """Converts 8-bit HSV planes to R, G and B planes.

    Args:
        hsv: H, 0..210 in units of 2 degrees, which wraps around at 180, and S and V, 0..255, each
            float32 [H, W].

    Returns:
        R, G and B, each float32 [H, W] of whole numbers 0..255.
    """
    h, s, v = hsv
    chroma = v * s * (1.0 / 255.0)
    turn = h * (1.0 / 30.0)  # sixths of the circle
    turn = tf.where(turn >= 6.0, turn - 6.0, turn)

    def minus_chroma(share: tf.Tensor) -> tf.Tensor:
        """Returns the value minus a share of the chroma."""
        return tf.round(v - chroma * tf.clip_by_value(share, 0.0, 1.0))

    red = minus_chroma(2.0 - tf.abs(turn - 3.0))
    green = minus_chroma(tf.abs(turn - 2.0) - 1.0)
    blue = minus_chroma(tf.abs(turn - 4.0) - 1.0)
    return red, green, blue


def _saturate(plane: tf.Tensor) -> tf.Tensor:
    """Rounds halves to even and clips to 0..255, as OpenCV's `saturate_cast<uchar>` does."""
    return tf.clip_by_value(tf.round(plane), 0.0, 255.0)


def _maybe(condition: tf.Tensor, op: Callable[[Planes], Planes], planes: Planes) -> Planes:
    return tf.cond(condition, lambda: op(planes), lambda: planes)
