"""Random expansion and random crops (section 2.2, "Data augmentation"), computed from boxes alone.

The parameters are those of the original code, which differ from the paper's. The sources are
`src/caffe/util/sampler.cpp`, `src/caffe/data_transformer.cpp` (ExpandImage, CropImage,
TransformAnnotation) and `examples/ssd/ssd_pascal.py`.
"""

import tensorflow as tf

from ssd_keras.boxes import pairwise_iou

EXPAND_PROBABILITY = 0.5
MAX_EXPAND_RATIO = 4.0
TRIALS = 50  # number of crops that each sampler draws
SCALE_RANGE = (0.3, 1.0)  # square root of the area of a crop
ASPECT_RANGE = (0.5, 2.0)  # width / height
# Minimum IoU of samplers 1 to 6; sampler 0 is the whole image. The last sampler of the original has
# max_jaccard 1.0 instead, which every crop of an image with an object meets.
MIN_IOU = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)


def draw_expansion(seed: tf.Tensor, image_size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a canvas for the expansion of an image.

    With probability 0.5 the canvas has 1 to 4 times the height and width of the image. Otherwise it
    has the size of the image.

    Args:
        seed: int [2].
        image_size: int32 [2], (height, width) in pixels.

    Returns:
        The canvas, int32 [2], (height, width) in pixels, and the offset, int32 [2], (y, x) of the
        top left corner of the image in canvas pixels.
    """
    u = tf.random.stateless_uniform([4], seed)
    ratio = tf.where(u[0] <= EXPAND_PROBABILITY, 1.0 + (MAX_EXPAND_RATIO - 1.0) * u[1], 1.0)
    canvas = tf.cast(tf.cast(image_size, tf.float32) * ratio, tf.int32)  # truncates
    offset = tf.floor(u[2:4] * tf.cast(canvas - image_size, tf.float32))
    return canvas, tf.cast(offset, tf.int32)


def draw_candidates(seed: tf.Tensor) -> tf.Tensor:
    """Draws the trials of samplers 1 to 6.

    Args:
        seed: int [2].

    Returns:
        float32 [6, 50, 4], normalized `yxyx`: 50 crops inside the image for each sampler.
    """
    u = tf.random.stateless_uniform([4, len(MIN_IOU), TRIALS], seed)
    scale = SCALE_RANGE[0] + (SCALE_RANGE[1] - SCALE_RANGE[0]) * u[0]
    aspect = ASPECT_RANGE[0] + (ASPECT_RANGE[1] - ASPECT_RANGE[0]) * u[1]
    aspect = tf.minimum(tf.maximum(aspect, scale**2), scale**-2)  # no side is above 1
    width, height = scale * tf.sqrt(aspect), scale / tf.sqrt(aspect)
    ymin, xmin = u[2] * (1 - height), u[3] * (1 - width)
    return tf.stack([ymin, xmin, ymin + height, xmin + width], axis=-1)


def choose_crop(
    candidates: tf.Tensor, boxes: tf.Tensor, u: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs all samplers on their trials, then picks one of the samplers that succeeded.

    A sampler succeeds if one of its trials has at least the sampler's minimum IoU with at least one
    object. It takes the first such trial.

    Args:
        candidates: float32 [6, 50, 4], normalized `yxyx`, from `draw_candidates`.
        boxes: float32 [G, 4], normalized `yxyx`. G may be 0.
        u: float32 scalar in [0, 1), which picks the sampler.

    Returns:
        The crop, float32 [4], normalized `yxyx`, and the number of its sampler, int32 scalar, from
        0 (the whole image) to 6.

    Source: `GenerateBatchSamples` in `sampler.cpp`.
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


def crop_window(crop: tf.Tensor, canvas: tf.Tensor) -> tf.Tensor:
    """Converts a crop to whole pixels, truncated as in the original.

    Args:
        crop: float32 [4], normalized `yxyx`.
        canvas: int32 [2], (height, width) in pixels.

    Returns:
        int32 [4], (top, left, height, width) in canvas pixels. Height and width are at least 1.
    """
    size = tf.cast(canvas, tf.float32)
    start, end = crop[:2] * size, crop[2:] * size
    # In the original the crop of an image of a few pixels can be empty.
    return tf.cast(tf.concat([start, tf.maximum(end - start, 1.0)], 0), tf.int32)


def crop_boxes(boxes: tf.Tensor, crop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Converts boxes to the coordinates of a crop.

    Args:
        boxes: float32 [G, 4], normalized `yxyx`.
        crop: float32 [4], normalized `yxyx` in the same coordinates.

    Returns:
        Two tensors. The boxes, float32 [G, 4], normalized `yxyx` relative to the crop and clipped
        to it. And bool [G], whether the center of a box lies in the crop or on its edge; only these
        boxes stay in the ground truth.
    """
    start, end = crop[:2], crop[2:]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = tf.reduce_all((center >= start) & (center <= end), axis=-1)
    moved = (boxes - tf.tile(start, [2])) / tf.tile(end - start, [2])
    return tf.clip_by_value(moved, 0.0, 1.0), inside
