"""Which part of which canvas is seen: expansion and the seven samplers, decided from boxes alone.

Caffe branch ssd: `src/caffe/util/sampler.cpp`, `src/caffe/data_transformer.cpp` (ExpandImage,
CropImage, TransformAnnotation), with the parameters of `examples/ssd/ssd_pascal.py`.
"""

from typing import Any

import tensorflow as tf

from ssd_keras.boxes import pairwise_iou

EXPAND_PROBABILITY = 0.5
MAX_EXPAND_RATIO = 4.0
TRIALS = 50
SCALE_RANGE = (0.3, 1.0)
ASPECT_RANGE = (0.5, 2.0)
# Samplers 2 to 7; sampler 1 is the whole image. The last one is the original's max_jaccard 1.0,
# which any crop meets as soon as the image holds an object.
MIN_IOU = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)


def draw_expansion(seed: Any, image_size: Any) -> tuple[Any, Any]:
    """Draws a canvas around the image.

    Args:
        seed: int [2].
        image_size: int32 [2], height and width, pixels.

    Returns:
        canvas int32 [2] (height, width) and offset int32 [2], the image's top left corner in it.
    """
    u = tf.random.stateless_uniform([4], seed)
    ratio = tf.where(u[0] <= EXPAND_PROBABILITY, 1.0 + (MAX_EXPAND_RATIO - 1.0) * u[1], 1.0)
    canvas = tf.cast(tf.cast(image_size, tf.float32) * ratio, tf.int32)  # truncates
    offset = tf.floor(u[2:4] * tf.cast(canvas - image_size, tf.float32))
    return canvas, tf.cast(offset, tf.int32)


def draw_candidates(seed: Any) -> Any:
    """Draws the trials of samplers 2 to 7: float32 [6, 50, 4] yxyx inside the unit square."""
    u = tf.random.stateless_uniform([4, len(MIN_IOU), TRIALS], seed)
    scale = SCALE_RANGE[0] + (SCALE_RANGE[1] - SCALE_RANGE[0]) * u[0]
    aspect = ASPECT_RANGE[0] + (ASPECT_RANGE[1] - ASPECT_RANGE[0]) * u[1]
    aspect = tf.minimum(tf.maximum(aspect, scale**2), scale**-2)  # keeps both sides below 1
    width, height = scale * tf.sqrt(aspect), scale / tf.sqrt(aspect)
    ymin, xmin = u[2] * (1 - height), u[3] * (1 - width)
    return tf.stack([ymin, xmin, ymin + height, xmin + width], axis=-1)


def choose_crop(candidates: Any, boxes: Any, u: Any) -> tuple[Any, Any]:
    """Runs all samplers on drawn trials, then picks one of those that succeeded.

    A sampler takes its first trial that has the wanted IoU with at least one object.

    Args:
        candidates: float32 [6, 50, 4] yxyx.
        boxes: float32 [G, 4] yxyx, G may be 0.
        u: float32 scalar in [0, 1), picks among the successes.

    Returns:
        crop float32 [4] yxyx, and the sampler's number, int32 0 (whole image) to 6.
    """
    overlaps = pairwise_iou(candidates, boxes)
    best_iou = tf.reduce_max(overlaps, axis=-1)  # [6, 50]; -inf without objects
    accepted = best_iou >= tf.constant(MIN_IOU)[:, None]
    first = tf.argmax(tf.cast(accepted, tf.int32), axis=1, output_type=tf.int32)
    crops = tf.concat(
        [tf.constant([[0.0, 0.0, 1.0, 1.0]]), tf.gather(candidates, first, axis=1, batch_dims=1)], 0
    )
    succeeded = tf.concat([[True], tf.reduce_any(accepted, axis=1)], 0)
    successes = tf.where(succeeded)[:, 0]
    pick = tf.cast(u * tf.cast(tf.size(successes), tf.float32), tf.int32)
    sampler = tf.cast(successes[pick], tf.int32)
    return crops[sampler], sampler


def crop_window(crop: Any, canvas: Any) -> Any:
    """The pixels of a crop: int32 [4] (top, left, height, width), truncated as in the original."""
    size = tf.cast(canvas, tf.float32)
    start, end = crop[:2] * size, crop[2:] * size
    # Never empty, which the original would be for an image of a few pixels.
    return tf.cast(tf.concat([start, tf.maximum(end - start, 1.0)], 0), tf.int32)


def crop_boxes(boxes: Any, crop: Any) -> tuple[Any, Any]:
    """Moves boxes into a crop's own coordinates.

    Args:
        boxes: float32 [G, 4] yxyx.
        crop: float32 [4] yxyx, in the same coordinates.

    Returns:
        boxes float32 [G, 4] clipped to the crop, and bool [G]: which ones stay, those whose centre
        lies in the crop, edges included.
    """
    start, end = crop[:2], crop[2:]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = tf.reduce_all((centre >= start) & (centre <= end), axis=-1)
    moved = (boxes - tf.tile(start, [2])) / tf.tile(end - start, [2])
    return tf.clip_by_value(moved, 0.0, 1.0), inside
