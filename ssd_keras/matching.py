"""Matching of default boxes to ground truth boxes (section 2.2, "Matching strategy")."""

import tensorflow as tf

from ssd_keras.boxes import pairwise_iou

# Pairs with an IoU of at most this value are never matched (`MatchBBox` in bbox_util.cpp).
_MIN_IOU = 1e-6


def match(
    ground_truth: tf.Tensor, default_boxes: tf.Tensor, iou_threshold: float = 0.5
) -> tf.Tensor:
    """Matches default boxes to the ground truth boxes of each image.

    Step 1 gives each ground truth box one default box. It is greedy: it repeatedly takes the pair
    of largest IoU whose two boxes are both free. Of equal IoUs, the default box with the lower
    index comes first, then the ground truth box with the lower index. Step 2 matches each default
    box that is still free to the ground truth box of largest IoU, if this IoU is at least
    `iou_threshold`.

    Args:
        ground_truth: float32 [B, G, 5], rows (ymin, xmin, ymax, xmax, label). Rows with a label of
            0 or below are padding. Rows without area cannot be matched and count as padding, too.
        default_boxes: float32 [P, 4], `yxyx`.
        iou_threshold: Smallest IoU of step 2, in (0, 1].

    Returns:
        int32 [B, P]: the index of its ground truth row for each positive, -1 for each negative.

    Raises:
        ValueError: If `ground_truth` is not [B, G, 5].

    Source: `MatchBBox`, match type PER_PREDICTION, in Caffe's `bbox_util.cpp`.
    """
    ground_truth = tf.convert_to_tensor(ground_truth, tf.float32)
    if ground_truth.shape.rank != 3 or ground_truth.shape[-1] != 5:
        raise ValueError(
            f"ground_truth has shape {ground_truth.shape}, but must be [B, G, 5]: "
            "ymin, xmin, ymax, xmax, label"
        )
    # One more row of padding, because argmax needs a row even if no image has an object.
    ground_truth = tf.pad(ground_truth, [[0, 0], [0, 1], [0, 0]])
    batch = tf.shape(ground_truth)[0]
    boxes, labels = ground_truth[..., :4], ground_truth[..., 4]
    has_area = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    valid = (labels > 0) & has_area  # [B, G]
    iou = pairwise_iou(boxes, default_boxes)  # [B, G, P]
    iou = tf.where(valid[..., None] & (iou > _MIN_IOU), iou, -1.0)

    # Step 2 is computed first. The result of step 1 then replaces it where they differ.
    best = tf.argmax(iou, axis=1, output_type=tf.int32)  # [B, P]
    matched = tf.where(tf.reduce_max(iou, axis=1) >= iou_threshold, best, -1)
    own = _bipartite(iou)  # [B, G]
    image, index = tf.meshgrid(tf.range(batch), tf.range(tf.shape(own)[1]), indexing="ij")
    # Ground truth without a default box of its own writes to a spare column, which is removed.
    spare = tf.shape(matched)[1]
    matched = tf.pad(matched, [[0, 0], [0, 1]])
    target = tf.stack([image, tf.where(own >= 0, own, spare)], axis=-1)
    return tf.tensor_scatter_nd_update(matched, target, index)[:, :-1]


def _bipartite(iou: tf.Tensor) -> tf.Tensor:
    """Computes step 1 of `match`.

    When a ground truth box is matched, at most G - 1 default boxes are taken. Its match is
    therefore among its G best default boxes, and each round searches [B, G, G] candidates instead
    of [B, G, P].

    Args:
        iou: float32 [B, G, P]; -1 for pairs that must not be matched.

    Returns:
        int32 [B, G]: the index of the default box of each ground truth box, or -1.
    """
    count = tf.minimum(tf.shape(iou)[1], tf.shape(iou)[2])
    value, box = tf.math.top_k(iou, k=count)  # equal values: lower index first
    rounds = tf.reduce_max(tf.reduce_sum(tf.cast(value[..., 0] > 0, tf.int32), axis=1))
    own = tf.fill(tf.shape(iou)[:2], -1)
    truth = tf.range(tf.shape(iou)[1])[None, :]  # [1, G]

    def assign(turn: tf.Tensor, value: tf.Tensor, own: tf.Tensor) -> tuple[tf.Tensor, ...]:
        largest = tf.reduce_max(value, axis=[1, 2], keepdims=True)  # [B, 1, 1]
        found = largest > 0
        taken = tf.where(value == largest, box, tf.int32.max)
        taken = tf.reduce_min(taken, axis=[1, 2], keepdims=True)  # the lowest default box
        winner = tf.reduce_any((value == largest) & (box == taken), axis=2)  # [B, G]
        winner = truth == tf.argmax(winner, axis=1, output_type=tf.int32)[:, None]
        winner &= found[..., 0]
        own = tf.where(winner, taken[..., 0], own)
        used = found & (winner[..., None] | (box == taken))
        return turn + 1, tf.where(used, -1.0, value), own

    return tf.while_loop(lambda turn, *_: turn < rounds, assign, [0, value, own])[2]
