"""Box formats, IoU and the coding of boxes as offsets from default boxes.

Corner form `yxyx` is (ymin, xmin, ymax, xmax), center form `cyxhw` is (cy, cx, h, w); both are
fractions of the image's height and width. All functions are pure, accept any leading dimensions,
and convert their input to float32.
"""

from collections.abc import Sequence

import tensorflow as tf


def yxyx_to_cyxhw(boxes: tf.Tensor) -> tf.Tensor:
    """Converts boxes from corner form to center form, both float32 [..., 4]."""
    ymin, xmin, ymax, xmax = tf.unstack(tf.cast(boxes, tf.float32), axis=-1)
    return tf.stack([(ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin], axis=-1)


def cyxhw_to_yxyx(boxes: tf.Tensor) -> tf.Tensor:
    """Converts boxes from center form to corner form, both float32 [..., 4]."""
    cy, cx, h, w = tf.unstack(tf.cast(boxes, tf.float32), axis=-1)
    return tf.stack([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2], axis=-1)


def pairwise_iou(boxes_a: tf.Tensor, boxes_b: tf.Tensor) -> tf.Tensor:
    """Computes the IoU (Jaccard overlap) of every box of one set with every box of another.

    The result equals that of the original bit for bit: with eager execution, in a graph and under
    XLA. Each product goes through `tf.where`, because XLA would otherwise fuse the product with the
    next sum and round once instead of twice.

    Args:
        boxes_a: float32 [..., N, 4], `yxyx`.
        boxes_b: float32 [..., M, 4], `yxyx`.

    Returns:
        float32 [..., N, M] in [0, 1]; 0 where two boxes do not overlap.

    Source: `JaccardOverlap` and `BBoxSize` in Caffe's `bbox_util.cpp`.
    """
    boxes_a, boxes_b = tf.cast(boxes_a, tf.float32), tf.cast(boxes_b, tf.float32)
    # One tensor per coordinate: slicing a tensor [..., N, M, 4] is several times slower.
    ay0, ax0, ay1, ax1 = tf.unstack(boxes_a[..., :, None, :], axis=-1)  # [..., N, 1]
    by0, bx0, by1, bx1 = tf.unstack(boxes_b[..., None, :, :], axis=-1)  # [..., 1, M]
    intersection = _area(
        tf.minimum(ay1, by1) - tf.maximum(ay0, by0), tf.minimum(ax1, bx1) - tf.maximum(ax0, bx0)
    )
    union = _area(ay1 - ay0, ax1 - ax0) + _area(by1 - by0, bx1 - bx0) - intersection
    return tf.math.divide_no_nan(intersection, union)


def _area(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns height times width where both are above 0, and 0 elsewhere."""
    return tf.where((height > 0) & (width > 0), height * width, 0.0)


def encode(boxes: tf.Tensor, default_boxes: tf.Tensor, variances: Sequence[float]) -> tf.Tensor:
    """Encodes boxes as offsets from default boxes.

    Args:
        boxes: float32 [..., P, 4], `yxyx`, height and width above 0.
        default_boxes: float32 [P, 4], `yxyx`, height and width above 0.
        variances: Four divisors in the order (cy, cx, h, w).

    Returns:
        float32 [..., P, 4]: ((cy - cy') / h', (cx - cx') / w', ln(h / h'), ln(w / w')), divided by
        the variances. (cy', cx', h', w') is the default box in center form.

    Raises:
        ValueError: If `variances` does not have four values.

    Source: section 2.2, equation 2; `EncodeBBox` in Caffe's `bbox_util.cpp`.
    """
    cy, cx, h, w = tf.unstack(yxyx_to_cyxhw(boxes), axis=-1)
    dcy, dcx, dh, dw = tf.unstack(yxyx_to_cyxhw(default_boxes), axis=-1)
    offsets = [(cy - dcy) / dh, (cx - dcx) / dw, tf.math.log(h / dh), tf.math.log(w / dw)]
    return tf.stack([o / v for o, v in zip(offsets, variances, strict=True)], axis=-1)


def decode(offsets: tf.Tensor, default_boxes: tf.Tensor, variances: Sequence[float]) -> tf.Tensor:
    """Decodes offsets to boxes, the inverse of `encode`. The boxes are not clipped.

    Args:
        offsets: float32 [..., P, 4] in the order (cy, cx, h, w).
        default_boxes: float32 [P, 4], `yxyx`.
        variances: Four divisors in the order (cy, cx, h, w).

    Returns:
        float32 [..., P, 4], `yxyx`; values may be outside [0, 1].

    Raises:
        ValueError: If `variances` does not have four values.

    Source: section 2.2, equation 2; `DecodeBBox` in Caffe's `bbox_util.cpp`.
    """
    parts = tf.unstack(tf.cast(offsets, tf.float32), axis=-1)
    tcy, tcx, th, tw = (v * part for v, part in zip(variances, parts, strict=True))
    dcy, dcx, dh, dw = tf.unstack(yxyx_to_cyxhw(default_boxes), axis=-1)
    centered = tf.stack([tcy * dh + dcy, tcx * dw + dcx, tf.exp(th) * dh, tf.exp(tw) * dw], axis=-1)
    return cyxhw_to_yxyx(centered)
