"""Gradient accumulation with the normalization of one large batch."""

import tensorflow as tf

from ssd_keras.config import SSDConfig
from ssd_keras.matching import match
from ssd_keras.tiling import default_boxes


def weigh_batches(dataset: tf.data.Dataset, accumulate: int, config: SSDConfig) -> tf.data.Dataset:
    """Adds sample weights that make accumulated batches count as one large batch.

    The loss of batch b is S_b / N_b, a sum divided by the number of positives. The mean over A
    batches is not the loss of the large batch, which is sum S_b / sum N_b. With the weight
    A N_b / sum N_b it is. The positives are known beforehand: matching needs the ground truth only.

    Args:
        dataset: Batches (images [B, ...], ground truth [B, G, 5]); the first one begins a step.
        accumulate: A, the batches of a step.
        config: The tiling.

    Returns:
        Dataset of (images, ground truth, weights float32 [B]).
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
