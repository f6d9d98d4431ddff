"""A dilated convolution with a gradient that every device has."""

import tensorflow as tf


def dilated_conv2d(features: tf.Tensor, kernel: tf.Tensor, dilation: tuple[int, int]) -> tf.Tensor:
    """Computes a dilated convolution of stride 1 with padding "same".

    The forward pass is one native operation. The gradient of the features is another one, with the
    flipped kernel. The gradient of the kernel is one matrix product for each row and column of the
    kernel. TensorFlow's own gradient of the native operation does not exist on CPUs without oneDNN.
    Keras's form, SpaceToBatchND, has a gradient everywhere, but takes several times as long for
    fc6.

    Args:
        features: float [B, H, W, channels].
        kernel: [rows, columns, channels, filters], the dtype of `features`. The numbers of rows and
            columns are odd.
        dilation: Distance of the rows and of the columns that the kernel sees.

    Returns:
        [B, H, W, filters], the dtype of `features`.

    Raises:
        ValueError: If the number of rows or columns of the kernel is even.
    """
    rows, columns, channels, filters = kernel.shape
    if rows % 2 == 0 or columns % 2 == 0:
        raise ValueError(
            f"kernel of {rows} x {columns} must have odd numbers of rows and columns, so that its "
            "padding is the same on both sides"
        )

    def convolve(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, weights, 1, "SAME", dilations=dilation)

    @tf.custom_gradient
    def with_gradient(x: tf.Tensor, weights: tf.Tensor):  # type: ignore[no-untyped-def]
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            flipped = tf.transpose(tf.reverse(weights, [0, 1]), [0, 1, 3, 2])
            shape = tf.shape(x)
            top, left = dilation[0] * (rows // 2), dilation[1] * (columns // 2)
            padded = tf.pad(x, [[0, 0], [top, top], [left, left], [0, 0]])
            upstream_rows = tf.reshape(upstream, [-1, filters])
            products = []
            for i in range(rows):
                for j in range(columns):
                    corner = [0, i * dilation[0], j * dilation[1], 0]
                    seen = tf.reshape(tf.slice(padded, corner, shape), [-1, channels])
                    products.append(tf.matmul(seen, upstream_rows, transpose_a=True))
            return convolve(upstream, flipped), tf.reshape(tf.stack(products), weights.shape)

        return convolve(x, weights), gradient

    return with_gradient(features, kernel)
