"""Gradient accumulation with the normalization of one large batch."""

import tensorflow as tf

from ssd_keras.config import SSDConfig
from ssd_keras.matching import match
from ssd_keras.tiling import default_boxes


def weigh_batches(dataset: tf.data.Dataset, accumulate: int, config: SSDConfig) -> tf.data.Dataset:
    """Adds sample weights, so that A accumulated batches have the loss of one large batch.

    The loss of batch b is S_b / N_b: the sum of its loss terms divided by its number of positives.
    The loss of one large batch is sum(S_b) / sum(N_b), but the mean of the A losses is another
    value. The two are equal if batch b has the weight A N_b / sum(N_b). The number of positives is
    known before the forward pass, because matching needs only the ground truth.

    Args:
        dataset: Batches (images float32 [B, H, W, 3], ground truth float32 [B, G, 5]). Its first
            batch is the first batch of an optimizer step.
        accumulate: A, the number of batches per optimizer step.
        config: The config whose default boxes are matched.

    Returns:
        Dataset of (images, ground truth, weights float32 [B]). All weights of a batch are equal.
    """
    boxes = default_boxes(config)

    @tf.autograph.experimental.do_not_convert
    def weigh(images: tf.Tensor, truth: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        shape = tf.shape(truth)  # [A, B, G, 5]
        matched = match(tf.reshape(truth, [-1, shape[2], 5]), boxes)
        positives = tf.reduce_sum(tf.cast(matched >= 0, tf.float32), axis=1)
        positives = tf.reduce_sum(tf.reshape(positives, shape[:2]), axis=1)  # [A]
        weights = tf.math.divide_no_nan(accumulate * positives, tf.reduce_sum(positives))
        return images, truth, tf.repeat(weights[:, None], shape[1], axis=1)

    steps = dataset.batch(accumulate, drop_remainder=True)
    return steps.map(weigh, num_parallel_calls=tf.data.AUTOTUNE).unbatch().prefetch(1)
