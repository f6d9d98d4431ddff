"""The one output tensor of the network and what its columns are."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ssd_keras.config import SSDConfig


def split_predictions(predictions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Names the two parts of the network's output.

    Args:
        predictions: float32 [B, P, 4 + 1 + C].

    Returns:
        Offsets [B, P, 4] in the order (cy, cx, h, w), divided by the variances, and logits
        [B, P, 1 + C], background first.
    """
    return predictions[..., :4], predictions[..., 4:]


def checked_labels(labels: Sequence[str], num_classes: int) -> tuple[str, ...]:
    """Class names as a tuple, if they can be lines of a label file.

    Raises:
        ValueError: If they are not `num_classes` different names of one line each.
    """
    if isinstance(labels, str):
        raise ValueError(f"labels (={labels!r}) must be a list of names, not one text")
    if len(labels) != num_classes:
        raise ValueError(
            f"labels has {len(labels)} names, but num_classes (={num_classes}) counts the "
            "classes without background: give one name for each"
        )
    for label in labels:
        if not isinstance(label, str) or label != label.strip() or len(label.splitlines()) != 1:
            raise ValueError(f"label {label!r} must be one line of text without blanks around it")
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels (={tuple(labels)}) must all differ")
    return tuple(labels)


@keras.saving.register_keras_serializable(package="ssd_keras")
class Predictions(keras.layers.Layer):
    """Joins the heads of all feature maps into one tensor, and knows what it means.

    Takes the offset maps [B, S, S, A * 4] and the logit maps [B, S, S, A * (1 + C)], all offsets
    first, and returns float32 [B, P, 4 + 1 + C]. Because the layer is part of the model, a `.keras`
    file always carries its tiling and its class names.

    Args:
        ssd_config: The tiling, `SSDConfig` or the dictionary of its `to_dict`.
        num_classes: C, without background.
        labels: Names of the C classes, or None.

    Raises:
        ValueError: If the labels break a rule of `checked_labels`.
    """

    def __init__(
        self,
        ssd_config: SSDConfig | dict[str, Any],
        num_classes: int,
        labels: tuple[str, ...] | list[str] | None = None,
        name: str = "predictions",
        trainable: bool = True,
        dtype: str = "float32",
    ) -> None:
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if isinstance(ssd_config, dict):
            ssd_config = SSDConfig.from_dict(ssd_config)
        self.ssd_config = ssd_config
        self.num_classes = num_classes
        self.labels = None if labels is None else checked_labels(labels, num_classes)

    def call(self, maps: list[tf.Tensor]) -> tf.Tensor:
        """Joins the maps; see the class."""
        half = len(maps) // 2
        offsets = _join(maps[:half], 4)
        logits = _join(maps[half:], self.num_classes + 1)
        return tf.concat([offsets, logits], axis=-1)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[Any, ...]:
        """[B, P, 4 + 1 + C]."""
        boxes = self.ssd_config.num_default_boxes
        return (input_shape[0][0], boxes, 4 + 1 + self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            "ssd_config": self.ssd_config.to_dict(),
            "num_classes": self.num_classes,
            "labels": self.labels,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": self.dtype_policy.name,
        }


def _join(maps: list[tf.Tensor], depth: int) -> tf.Tensor:
    """[B, S, S, A * depth] of every map to [B, P, depth]."""
    boxes = [m.shape[1] * m.shape[2] * m.shape[3] // depth for m in maps]
    joined = [keras.ops.reshape(m, (-1, n, depth)) for m, n in zip(maps, boxes, strict=True)]
    return tf.concat(joined, axis=1)
