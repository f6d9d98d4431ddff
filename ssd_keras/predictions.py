"""The output tensor of the network: how it is joined and split."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ssd_keras.config import SSDConfig


def split_predictions(predictions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits the output of the network into offsets and logits.

    Args:
        predictions: float32 [B, P, 4 + 1 + C].

    Returns:
        Offsets float32 [B, P, 4], in the order (cy, cx, h, w) and divided by the variances, and
        logits float32 [B, P, 1 + C], background first.
    """
    return predictions[..., :4], predictions[..., 4:]


def checked_labels(labels: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Checks that class names can be the lines of a label file.

    Args:
        labels: Class names without the background.
        num_classes: Number of classes without the background.

    Returns:
        The names as a tuple.

    Raises:
        ValueError: If `labels` is one string, has another length than `num_classes`, has a name
            twice, or has a name that is not one line of text without leading and trailing spaces.
    """
    if isinstance(labels, str):
        raise ValueError(f"labels (={labels!r}) must be a list of names, not one string")
    if len(labels) != num_classes:
        raise ValueError(
            f"labels has {len(labels)} names, but num_classes (={num_classes}) counts the "
            "classes without the background: give one name for each (read_labels reads a file "
            "with one name on each line; split() also splits at spaces)"
        )
    for label in labels:
        if not isinstance(label, str) or label != label.strip() or len(label.splitlines()) != 1:
            raise ValueError(
                f"label {label!r} must be one line of text without spaces at its start and end"
            )
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels (={tuple(labels)}) must all differ: rename one of each pair")
    return tuple(labels)


@keras.saving.register_keras_serializable(package="ssd_keras")
class Predictions(keras.layers.Layer):
    """Joins the outputs of all heads into one tensor, and stores the config and the class names.

    The layer takes a list of the offsets [B, H, W, A * 4] of all feature maps, followed by the
    logits [B, H, W, A * (1 + C)] of all feature maps. H and W are the rows and columns of a map,
    and A is its number of default boxes at each cell. The layer returns float32
    [B, P, 4 + 1 + C].

    Because the layer is part of the model, every `.keras` file holds the config and class names.

    Args:
        ssd_config: The config of the model, as `SSDConfig` or as the result of its `to_dict`.
        num_classes: C, the number of classes without the background.
        labels: Names of the C classes, or None.
        width: The width of the model; None in files of earlier versions.
        name: Name of the layer.
        trainable: As in `keras.layers.Layer`; the layer has no weights.
        dtype: Dtype of the result.

    Raises:
        ValueError: If `checked_labels` refuses `labels`.
    """

    def __init__(
        self,
        ssd_config: SSDConfig | dict[str, Any],
        num_classes: int,
        labels: tuple[str, ...] | list[str] | None = None,
        width: float | None = None,
        name: str = "predictions",
        trainable: bool = True,
        dtype: str = "float32",
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if isinstance(ssd_config, dict):
            ssd_config = SSDConfig.from_dict(ssd_config)
        self.ssd_config = ssd_config
        self.num_classes = num_classes
        self.width = width
        self.labels = None if labels is None else checked_labels(labels, num_classes)

    def call(self, maps: list[tf.Tensor]) -> tf.Tensor:
        """Joins the maps; the class docstring gives the shapes."""
        half = len(maps) // 2
        offsets = _join(maps[:half], 4)
        logits = _join(maps[half:], self.num_classes + 1)
        return tf.concat([offsets, logits], axis=-1)

    def compute_output_shape(
        self, input_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns (B, P, 4 + 1 + C)."""
        boxes = self.ssd_config.num_default_boxes
        return (input_shape[0][0], boxes, 4 + 1 + self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer as JSON values."""
        return {
            "ssd_config": self.ssd_config.to_dict(),
            "num_classes": self.num_classes,
            "labels": self.labels,
            "width": self.width,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": self.dtype_policy.name,
        }


def _join(maps: list[tf.Tensor], depth: int) -> tf.Tensor:
    """Reshapes maps [B, H, W, A * depth] and joins them to [B, P, depth]."""
    boxes = [m.shape[1] * m.shape[2] * m.shape[3] // depth for m in maps]
    joined = [keras.ops.reshape(m, (-1, n, depth)) for m, n in zip(maps, boxes, strict=True)]
    return tf.concat(joined, axis=1)
