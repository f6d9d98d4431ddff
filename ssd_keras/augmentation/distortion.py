"""Photometric distortion, as the original does it: on 8-bit values, in OpenCV's 8-bit HSV.

Caffe branch ssd, `src/caffe/util/im_transforms.cpp` (ApplyDistort and what it calls). Pixels are
held as three float32 planes of whole numbers 0..255; every op rounds and saturates as uint8 would.
"""

from typing import Any, NamedTuple

import tensorflow as tf

BRIGHTNESS_DELTA = 32.0
CONTRAST_RANGE = (0.5, 1.5)
SATURATION_RANGE = (0.5, 1.5)
HUE_DELTA = 18.0  # of 180, the full circle of OpenCV's 8-bit hue: 36 degrees

Planes = tuple[Any, Any, Any]


class Distortion(NamedTuple):
    """What `draw_distortion` drew: scalars; an op that is not applied keeps its amount.

    Attributes:
        contrast_first: Whether contrast comes right after brightness, or after everything else.
        applied: bool [4]: brightness, contrast, saturation, hue.
        brightness: Added to R, G and B, in levels.
        contrast: Factor of R, G and B.
        saturation: Factor of S.
        hue: Added to H, in units of 2 degrees.
    """

    contrast_first: Any
    applied: Any
    brightness: Any
    contrast: Any
    saturation: Any
    hue: Any


def draw_distortion(seed: Any) -> Distortion:
    """Draws one distortion: each op with probability 0.5, both orders equally likely."""
    u = tf.random.stateless_uniform([9], seed)

    def between(value: Any, low: float, high: float) -> Any:
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
    """Applies a drawn distortion to R, G and B planes, float32 [H, W] of whole numbers 0..255."""
    brightness, contrast, saturation, hue = tf.unstack(d.applied)
    planes = _maybe(brightness, lambda p: adjust_brightness(p, d.brightness), planes)
    planes = _maybe(contrast & d.contrast_first, lambda p: adjust_contrast(p, d.contrast), planes)
    planes = _maybe(saturation, lambda p: adjust_saturation(p, d.saturation), planes)
    planes = _maybe(hue, lambda p: adjust_hue(p, d.hue), planes)
    return _maybe(contrast & ~d.contrast_first, lambda p: adjust_contrast(p, d.contrast), planes)


def adjust_brightness(planes: Planes, delta: Any) -> Planes:
    """Adds `delta` levels to every plane."""
    return tuple(_saturate(p + delta) for p in planes)


def adjust_contrast(planes: Planes, factor: Any) -> Planes:
    """Multiplies every plane by `factor`."""
    return tuple(_saturate(p * factor) for p in planes)


def adjust_saturation(planes: Planes, factor: Any) -> Planes:
    """Multiplies S by `factor` in 8-bit HSV."""
    h, s, v = rgb_to_hsv8(planes)
    return hsv8_to_rgb((h, _saturate(s * factor), v))


def adjust_hue(planes: Planes, delta: Any) -> Planes:
    """Adds `delta` to H in 8-bit HSV.

    As uint8 it stops at 0, pure red; from 180 on it wraps, on the way back to RGB.
    """
    h, s, v = rgb_to_hsv8(planes)
    return hsv8_to_rgb((_saturate(h + delta), s, v))


def rgb_to_hsv8(planes: Planes) -> Planes:
    """RGB 0..255 to OpenCV's 8-bit HSV: H 0..179 in steps of 2 degrees, S and V 0..255."""
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
    """Back to RGB, rounded. H may be 0..210; it wraps at 180."""
    h, s, v = hsv
    chroma = v * s * (1.0 / 255.0)
    turn = h * (1.0 / 30.0)  # sixths of the circle
    turn = tf.where(turn >= 6.0, turn - 6.0, turn)

    def without(share: Any) -> Any:
        return tf.round(v - chroma * tf.clip_by_value(share, 0.0, 1.0))

    red = without(2.0 - tf.abs(turn - 3.0))
    green = without(tf.abs(turn - 2.0) - 1.0)
    blue = without(tf.abs(turn - 4.0) - 1.0)
    return red, green, blue


def _saturate(plane: Any) -> Any:
    """Rounds half to even and clips, as OpenCV's saturate_cast<uchar> does."""
    return tf.clip_by_value(tf.round(plane), 0.0, 255.0)


def _maybe(condition: Any, op: Any, planes: Planes) -> Planes:
    return tf.cond(condition, lambda: op(planes), lambda: planes)
