"""Which default boxes stand for which ground truth (section 2.2, "Matching strategy")."""

import tensorflow as tf

from ssd_keras.boxes import pairwise_iou

# Pairs that overlap no more than this are never matched (`MatchBBox` in bbox_util.cpp).
_MIN_IOU = 1e-6


def match(
    ground_truth: tf.Tensor, default_boxes: tf.Tensor, iou_threshold: float = 0.5
) -> tf.Tensor:
    """Matches default boxes to the ground truth of each image.

    First every ground truth gets a default box of its own, greedily by largest IoU over all free
    pairs (ties: lower default box, then lower ground truth). Then every default box still free
    goes to the ground truth it overlaps most, if their IoU is at least `iou_threshold`.

    Args:
        ground_truth: float32 [B, G, 5], `yxyx` and label. Rows whose label is not above 0 are
            padding; rows without area cannot be matched and count as padding too.
        default_boxes: float32 [P, 4], `yxyx`.
        iou_threshold: Smallest IoU of the second step, in (0, 1].

    Returns:
        int32 [B, P]: for a positive the index of its ground truth, for a negative -1.

    Raises:
        ValueError: If the shape of `ground_truth` is another.

    Source: `MatchBBox`, match type PER_PREDICTION, in Caffe's `bbox_util.cpp`.
    """
    ground_truth = tf.convert_to_tensor(ground_truth, tf.float32)
    if ground_truth.shape.rank != 3 or ground_truth.shape[-1] != 5:
        raise ValueError(
            f"ground_truth has shape {ground_truth.shape}, but must be [B, G, 5]: "
            "ymin, xmin, ymax, xmax, label"
        )
    # A row of padding, so that there is one even if no image of the batch has an object.
    ground_truth = tf.pad(ground_truth, [[0, 0], [0, 1], [0, 0]])
    batch = tf.shape(ground_truth)[0]
    boxes, labels = ground_truth[..., :4], ground_truth[..., 4]
    has_area = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    valid = (labels > 0) & has_area  # [B, G]
    iou = pairwise_iou(boxes, default_boxes)  # [B, G, P]
    iou = tf.where(valid[..., None] & (iou > _MIN_IOU), iou, -1.0)

    # Step 2 first: step 1 then overrules it.
    best = tf.argmax(iou, axis=1, output_type=tf.int32)  # [B, P]
    matched = tf.where(tf.reduce_max(iou, axis=1) >= iou_threshold, best, -1)
    own = _bipartite(iou)  # [B, G]
    image, index = tf.meshgrid(tf.range(batch), tf.range(tf.shape(own)[1]), indexing="ij")
    # Ground truth without a default box of its own writes to a spare column, cut off again.
    spare = tf.shape(matched)[1]
    matched = tf.pad(matched, [[0, 0], [0, 1]])
    target = tf.stack([image, tf.where(own >= 0, own, spare)], axis=-1)
    return tf.tensor_scatter_nd_update(matched, target, index)[:, :-1]


def _bipartite(iou: tf.Tensor) -> tf.Tensor:
    """Greedy one-to-one matching: the default box of each ground truth, int32 [B, G], or -1.

    At most G - 1 default boxes are taken before a ground truth has its turn, so its match is among
    its G best: the rounds work on [B, G, G] candidates, not on [B, G, P].
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
