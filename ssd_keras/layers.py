"""Layers of VGG16-SSD that Keras does not have."""

from typing import Any

import keras
import tensorflow as tf

from ssd_keras.dilation import dilated_conv2d


@keras.saving.register_keras_serializable(package="ssd_keras")
class Preprocessing(keras.layers.Layer):
    """Converts RGB images to the input of Caffe's VGG16: BGR, mean subtracted, not scaled.

    The layer is part of the model, so that training, SavedModel and TFLite use the same
    preprocessing. It takes RGB images [B, H, W, 3] of any numeric dtype, 0..255. It returns BGR
    images [B, H, W, 3] in the compute dtype.

    Args:
        mean: RGB mean, 0..255.
        name: Name of the layer.
        trainable: As in `keras.layers.Layer`; the layer has no weights.
        dtype: Dtype policy, as in `keras.layers.Layer`.
    """

    def __init__(
        self,
        mean: tuple[float, float, float] = (123.0, 117.0, 104.0),
        name: str = "preprocessing",
        trainable: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        # No autocast: half precision would round the pixels before the mean is subtracted.
        super().__init__(name=name, trainable=trainable, dtype=dtype, autocast=False)
        self.mean = tuple(mean)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Subtracts the mean and reverses the channels; the class docstring gives the shapes."""
        centered = tf.cast(images, tf.float32) - tf.constant(self.mean)
        return tf.cast(tf.reverse(centered, axis=[-1]), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer as JSON values."""
        return {**super().get_config(), "mean": self.mean}


@keras.saving.register_keras_serializable(package="ssd_keras")
class L2Normalization(keras.layers.Layer):
    """Normalizes the features of each cell and multiplies them by learned scales.

    The layer divides the features of a cell by their L2 norm and multiplies each channel by its
    scale. The norm is computed in float32 under any dtype policy, because the sum of 512 squares
    overflows float16. The layer takes float [B, H, W, channels] and returns the same shape in the
    compute dtype.

    Args:
        initial_scale: Initial value of all scales.
        name: Name of the layer.
        trainable: Whether the scales are trained.
        dtype: Dtype policy, as in `keras.layers.Layer`.

    Source: section 3.1, after ParseNet; `normalize_layer.cpp` (across_spatial false, channel_shared
    false, eps 1e-10).
    """

    def __init__(
        self,
        initial_scale: float = 20.0,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self.initial_scale = initial_scale

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scales, float32 [channels]."""
        self.scale = self.add_weight(
            name="scale",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_scale),
        )

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Normalizes and scales the features; the class docstring gives the shapes."""
        unit = tf.math.l2_normalize(tf.cast(features, tf.float32), axis=-1, epsilon=1e-10)
        return tf.cast(unit * tf.cast(self.scale, tf.float32), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer as JSON values."""
        return {**super().get_config(), "initial_scale": self.initial_scale}


@keras.saving.register_keras_serializable(package="ssd_keras")
class DilatedConv2D(keras.layers.Conv2D):
    """A dilated convolution that runs as one native operation.

    With TensorFlow, Keras runs a dilated convolution as three operations: SpaceToBatchND, a
    convolution without dilation, and BatchToSpaceND. For fc6 they take more than twice as long as
    the native operation, because the 19 x 19 cells become 36 patches with wide padding.
    `dilated_conv2d` computes the gradients of the native operation.

    The layer takes float [B, H, W, channels] and returns [B, H, W, filters]. The padding must be
    "same", the stride 1, and the kernel must have odd sides. The layer must have a bias. The
    arguments are those of
    `keras.layers.Conv2D`.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates kernel and bias.

        Raises:
            ValueError: If the padding is not "same".
        """
        if self.padding != "same":
            raise ValueError(f'padding (={self.padding}) must be "same"')
        super().build(input_shape)

    def call(self, features: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Computes the convolution, bias and activation.

        Args:
            features: float [B, H, W, channels].
            training: If False, the graph has no gradient function of this package, so that exported
                graphs have standard operations only.

        Returns:
            float [B, H, W, filters].
        """
        kernel, bias = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        if training is False:
            outputs = tf.nn.conv2d(features, kernel, 1, "SAME", dilations=self.dilation_rate)
        else:
            outputs = dilated_conv2d(features, kernel, self.dilation_rate)
        return self.activation(tf.nn.bias_add(outputs, bias))
