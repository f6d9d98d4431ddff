"""The layers that VGG16-SSD needs beside Keras's own."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="ssd_keras")
class Preprocessing(keras.layers.Layer):
    """RGB images 0..255 to what Caffe's VGG16 was trained on: BGR, mean subtracted, not scaled.

    It is part of the model, so that training, SavedModel and TFLite cannot differ. Takes
    [B, H, W, 3] of any numeric dtype and returns the same shape in the compute dtype.

    Args:
        mean: RGB mean, 0..255.
    """

    def __init__(
        self,
        mean: tuple[float, float, float] = (123.0, 117.0, 104.0),
        name: str = "preprocessing",
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        # Half precision would round the pixels before the mean is taken off.
        super().__init__(name=name, trainable=trainable, dtype=dtype, autocast=False)
        self.mean = tuple(mean)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Images less the mean, channels reversed."""
        centred = tf.cast(images, tf.float32) - tf.constant(self.mean)
        return tf.cast(tf.reverse(centred, axis=[-1]), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "mean": self.mean}


@keras.saving.register_keras_serializable(package="ssd_keras")
class L2Normalization(keras.layers.Layer):
    """Scales the features of each cell to a learnt length (section 3.1; ParseNet).

    Each cell's vector is divided by its L2 norm, taken in float32 whatever the policy (the sum of
    512 squares overflows float16), and multiplied by one learnt scale for each channel.

    Args:
        initial_scale: Starting value of every scale.

    Source: `normalize_layer.cpp` (across_spatial false, channel_shared false, eps 1e-10).
    """

    def __init__(
        self,
        initial_scale: float = 20.0,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self.initial_scale = initial_scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the scales, [channels]."""
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """[B, H, W, channels] to the same, each cell scaled."""
        unit = tf.math.l2_normalize(tf.cast(features, tf.float32), axis=-1, epsilon=1e-10)
        return tf.cast(unit * tf.cast(self.scale, tf.float32), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {**super().get_config(), "initial_scale": self.initial_scale}


@keras.saving.register_keras_serializable(package="ssd_keras")
class DilatedConv2D(keras.layers.Conv2D):
    """A dilated convolution of stride 1 that outside of training runs as what it is.

    On TensorFlow, Keras moves the holes into the batch (SpaceToBatchND), convolves and moves them
    back. For fc6 that is about half as fast: its 19 x 19 cells become 36 patches with wide margins.
    Training stays with it, because TensorFlow has the direct form's gradient not on every CPU.

    Takes [B, H, W, channels] and returns [B, H, W, filters] with padding "same". Arguments are
    those of `keras.layers.Conv2D`.
    """

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """The convolution, bias and activation."""
        if training is not False:  # also in a training loop of one's own that says nothing
            return super().call(features)
        kernel, bias = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        padding = self.padding.upper()
        outputs = tf.nn.conv2d(features, kernel, 1, padding, dilations=self.dilation_rate)
        return self.activation(tf.nn.bias_add(outputs, bias))
