import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.dilation import dilated_conv2d
from ssd_keras.layers import DilatedConv2D

KINDS = {
    "eager": lambda function: function,
    "graph": tf.function,
    "XLA": lambda function: tf.function(function, jit_compile=True),
}


def with_gradients(convolve, features, kernel, upstream):
    """The outputs and the gradients of features and kernel."""
    with tf.GradientTape() as tape:
        tape.watch([features, kernel])
        outputs = convolve(features, kernel)
    return outputs, *tape.gradient(outputs, [features, kernel], upstream)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2**-7)])
@pytest.mark.parametrize(("size", "dilation"), [((3, 3), (6, 6)), ((5, 3), (2, 3))])
def test_gradients_are_those_of_the_kernel_with_zeros_between_its_values(
    kind, dtype, tolerance, size, dilation
):
    """The reference is TensorFlow's convolution without dilation, in float32."""
    rng = np.random.default_rng(0)
    shapes = {"features": (2, 14, 13, 4), "kernel": (*size, 4, 5), "upstream": (2, 14, 13, 5)}
    tensors = [tf.cast(rng.normal(size=shape), dtype) for shape in shapes.values()]

    found = KINDS[kind](
        lambda x, k, u: with_gradients(lambda x, k: dilated_conv2d(x, k, dilation), x, k, u)
    )(*tensors)

    x, kernel, upstream = (tf.cast(tensor, tf.float32) for tensor in tensors)
    (rows, columns), (down, right) = size, dilation
    spread = np.zeros((down * (rows - 1) + 1, right * (columns - 1) + 1, 4, 5), np.float32)
    spread[::down, ::right] = kernel
    outputs, to_x, to_kernel = with_gradients(
        lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), x, tf.constant(spread), upstream
    )
    for value, expected in zip(found, (outputs, to_x, to_kernel[::down, ::right]), strict=True):
        assert value.dtype == dtype
        scale = np.abs(expected).max()
        np.testing.assert_allclose(tf.cast(value, tf.float32), expected, atol=tolerance * scale)


def test_gradients_are_tensorflows_own():
    """Of the native operation; only CPUs with oneDNN have its gradient."""
    rng = np.random.default_rng(1)
    shapes = (2, 19, 19, 16), (3, 3, 16, 32), (2, 19, 19, 32)
    tensors = [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]
    try:
        expected = with_gradients(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME", dilations=6), *tensors)
    except tf.errors.OpError as error:
        pytest.skip(f"no gradient here: {error.message}")
    found = with_gradients(lambda x, k: dilated_conv2d(x, k, (6, 6)), *tensors)
    for value, own in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, own, atol=1e-5 * np.abs(own).max())


def test_sizes_known_at_run_time_only():
    specs = tf.TensorSpec([None, None, None, 4]), tf.TensorSpec([3, 3, 4, 5])
    run = tf.function(
        lambda x, k: with_gradients(lambda x, k: dilated_conv2d(x, k, (6, 6)), x, k, None),
        input_signature=specs,
    )
    outputs, to_features, to_kernel = run(tf.ones([1, 7, 9, 4]), tf.ones([3, 3, 4, 5]))
    assert outputs.shape == (1, 7, 9, 5)
    assert outputs[0, 0, 0, 0] == 4 * 4  # cells (0, 0), (0, 6), (6, 0) and (6, 6) of 4 channels
    assert to_features[0, 3, 4, 0] == 5  # only the cell itself sees it: 5 filters
    assert to_kernel[1, 1, 0, 0] == 7 * 9  # the middle of the kernel sees all cells
    assert to_kernel[0, 0, 0, 0] == 1 * 3  # its corner sees rows 0 and columns 0 to 2


def test_what_is_not_supported_is_refused():
    with pytest.raises(ValueError, match="2 x 3 must have odd numbers"):
        dilated_conv2d(tf.ones([1, 9, 9, 1]), tf.ones([2, 3, 1, 1]), (2, 2))
    with pytest.raises(ValueError, match=r"padding \(=valid\) must be \"same\""):
        DilatedConv2D(1, 3, dilation_rate=2)(tf.ones([1, 9, 9, 1]))


def test_mixed_precision_gives_gradients_of_the_weights_in_float32():
    layer = DilatedConv2D(2, 3, dilation_rate=6, padding="same", dtype="mixed_bfloat16")
    with tf.GradientTape() as tape:
        outputs = layer(tf.ones([1, 7, 7, 3]), training=True)
    kernel, bias = tape.gradient(outputs, [layer.kernel.value, layer.bias.value])
    assert outputs.dtype == "bfloat16"
    assert kernel.dtype == bias.dtype == "float32"
    np.testing.assert_array_equal(kernel[1, 1], np.full((3, 2), 49))
    np.testing.assert_array_equal(kernel[0, 0], np.full((3, 2), 1))
