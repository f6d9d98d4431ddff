"""Decoding of predictions and non-maximum suppression (section 3.1)."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.boxes import decode
from ssd_keras.config import SSDConfig
from ssd_keras.config_files import ConfigLike, as_config
from ssd_keras.predictions import split_predictions
from ssd_keras.tiling import default_boxes

# The detections of one image: "boxes" [N, 4] yxyx, "scores" [N] and "classes" [N], from 1.
Detections = dict[str, np.ndarray]

# The values of the original's deploy network.
SCORE_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS = 0.01, 0.45, 200


@keras.saving.register_keras_serializable(package="ssd_keras")
class DetectionDecoder(keras.layers.Layer):
    """Decodes predictions into the detections of each image, highest score first.

    The layer takes predictions float32 [B, P, 4 + 1 + C] and returns a dictionary:

    - `boxes`: float32 [B, K, 4], normalized `yxyx`, clipped to the image.
    - `scores`: float32 [B, K], softmax scores.
    - `classes`: int32 [B, K], counted from 1.
    - `num_detections`: int32 [B]. Rows from this index on are zero in the other tensors.

    Suppression is greedy, per class and on unclipped boxes. It removes a box if its IoU with a kept
    box of higher score is above `iou_threshold`. The original keeps only the 400 boxes of highest
    score in each class before suppression. This layer has no such limit. With the limit, many boxes
    on one object can remove all boxes of another object.

    Args:
        config: Config of the model that makes the predictions, its name, a `.json` file, or the
            result of its `to_dict`.
        score_threshold: Detections must have a score above this threshold, in [0, 1).
        iou_threshold: IoU threshold of suppression, in (0, 1].
        max_detections: K, the largest number of detections in an image over all classes.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is out of range. When the layer is called: if P is not the number
            of default boxes of the config.
        FileNotFoundError, TypeError: If `as_config` refuses `config`.

    Source: section 3.1; `detection_output_layer.cpp`, `ApplyNMSFast` in `bbox_util.cpp`.
    """

    def __init__(
        self,
        config: ConfigLike | dict[str, Any],
        score_threshold: float = SCORE_THRESHOLD,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
        name: str = "detections",
    ) -> None:
        super().__init__(name=name, trainable=False, dtype="float32")
        if isinstance(config, dict):
            config = SSDConfig.from_dict(config)
        config = as_config(config)
        if not 0 <= score_threshold < 1:
            raise ValueError(f"score_threshold (={score_threshold}) must be in [0, 1)")
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold (={iou_threshold}) must be in (0, 1]")
        if max_detections < 1:
            raise ValueError(f"max_detections (={max_detections}) must be at least 1")
        self.config = config
        self.score_threshold = score_threshold
        self.iou_threshold = iou_threshold
        self.max_detections = max_detections
        self._default_boxes = default_boxes(config)

    def call(self, predictions: tf.Tensor) -> dict[str, tf.Tensor]:
        """Decodes predictions; the class docstring gives the shapes."""
        boxes, scores = self.candidates(predictions)
        # All classes share one box (q = 1). The limit per class equals the limit over all classes.
        # A larger limit per class gives the same detections, but is several times slower when many
        # boxes pass the threshold.
        kept = tf.image.combined_non_max_suppression(
            boxes[:, :, None, :],
            scores,
            max_output_size_per_class=self.max_detections,
            max_total_size=self.max_detections,
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            clip_boxes=True,
        )
        real = tf.sequence_mask(kept.valid_detections, self.max_detections)
        return {
            "boxes": kept.nmsed_boxes,
            "scores": kept.nmsed_scores,
            "classes": tf.where(real, tf.cast(kept.nmsed_classes, tf.int32) + 1, 0),
            "num_detections": kept.valid_detections,
        }

    def candidates(self, predictions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes all boxes and scores, without suppression.

        Args:
            predictions: float32 [B, P, 4 + 1 + C].

        Returns:
            Boxes float32 [B, P, 4], normalized `yxyx`, not clipped, and softmax scores float32
            [B, P, C] of the classes, without the score of the background.

        Raises:
            ValueError: If P is not the number of default boxes of the config.
        """
        if predictions.shape[1] != len(self._default_boxes):
            raise ValueError(
                f"predictions have shape {predictions.shape}, but the config has "
                f"{len(self._default_boxes)} default boxes: use the config of the model"
            )
        offsets, logits = split_predictions(tf.cast(predictions, tf.float32))
        boxes = decode(offsets, self._default_boxes, self.config.variances)
        return boxes, tf.nn.softmax(logits)[..., 1:]

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...]
    ) -> dict[str, tuple[int | None, ...]]:
        """Returns the shapes of the tensors in the dictionary."""
        batch, k = input_shape[0], self.max_detections
        return {
            "boxes": (batch, k, 4),
            "scores": (batch, k),
            "classes": (batch, k),
            "num_detections": (batch,),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer as JSON values."""
        return {
            "config": self.config.to_dict(),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "name": self.name,
        }


def unpad(outputs: dict[str, np.ndarray]) -> list[Detections]:
    """Splits the detections of a batch by image and removes the padding.

    Args:
        outputs: `boxes` float32 [B, K, 4], `scores` float32 [B, K], `classes` int32 [B, K] and
            `num_detections` int32 [B]. The names may start with `detection_`.

    Returns:
        For each image `boxes` [N, 4], `scores` [N] and `classes` [N], with the dtypes of `outputs`.

    Raises:
        KeyError: If one of the four tensors is missing.
    """
    arrays = {name.removeprefix("detection_"): np.asarray(v) for name, v in outputs.items()}
    return [
        {name: arrays[name][i, : int(n)] for name in ("boxes", "scores", "classes")}
        for i, n in enumerate(arrays["num_detections"])
    ]
