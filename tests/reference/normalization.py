"""The gradient of the original's Normalize layer, which is not the exact gradient."""

import tensorflow as tf


@tf.custom_gradient
def _normalize(features, scale):
    squares = tf.reduce_sum(features**2, axis=-1, keepdims=True) + 1e-10
    norm = tf.sqrt(squares)
    unit = features / norm

    def gradient(upstream):
        # The exact gradient has `scale * upstream` instead of `upstream` in this product.
        product = tf.reduce_sum(features * upstream, axis=-1, keepdims=True)
        to_features = scale * (upstream - features * product / squares) / norm
        return to_features, tf.reduce_sum(unit * upstream, axis=[0, 1, 2])

    return unit * scale, gradient


def call_with_original_gradient(layer, features):
    """Replaces `L2Normalization.call`. Source: Backward in normalize_layer.cpp and .cu.

    The two gradients are equal if all scales are equal, as at the start of a training.
    """
    return _normalize(features, tf.convert_to_tensor(layer.scale))
