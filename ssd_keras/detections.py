"""From predictions to detections: decode, then combined non-maximum suppression (section 3.1)."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.boxes import decode
from ssd_keras.config import SSDConfig
from ssd_keras.predictions import split_predictions
from ssd_keras.tiling import default_boxes

# Of the original's deploy network.
Detections = dict[str, np.ndarray]  # "boxes" [N, 4] yxyx, "scores" [N], "classes" [N] from 1

SCORE_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS = 0.01, 0.45, 200


@keras.saving.register_keras_serializable(package="ssd_keras")
class DetectionDecoder(keras.layers.Layer):
    """Turns predictions into the detections of each image, best first.

    Takes predictions float32 [B, P, 4 + 1 + C] and returns a dictionary:
    `boxes` float32 [B, K, 4], `yxyx` clipped to the image; `scores` float32 [B, K]; `classes`
    int32 [B, K], from 1; `num_detections` int32 [B]. Rows from `num_detections` on are all zero.

    Suppression is per class, on unclipped boxes; a box goes if its IoU with a better one is above
    `iou_threshold`. The original keeps the 400 best boxes of a class before suppression; here
    there is no such cap, so that a cluster of boxes on one object cannot crowd out another object.

    Args:
        config: The tiling of the predictions.
        score_threshold: Softmax scores must be above it, in [0, 1).
        iou_threshold: In (0, 1].
        max_detections: K, kept over all classes.

    Raises:
        ValueError: If an argument is out of range; in a call, if P is not the config's.

    Source: section 3.1; `detection_output_layer.cpp`, `ApplyNMSFast` in `bbox_util.cpp`.
    """

    def __init__(
        self,
        config: SSDConfig | dict[str, Any],
        score_threshold: float = SCORE_THRESHOLD,
        iou_threshold: float = IOU_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
        name: str = "detections",
    ) -> None:
        super().__init__(name=name, trainable=False, dtype="float32")
        if isinstance(config, dict):
            config = SSDConfig.from_dict(config)
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
        """Predictions to detections; see the class."""
        boxes, scores = self.candidates(predictions)
        # One box for all classes (q = 1), and no more kept in a class than in all: the same
        # detections as with larger caps, several times faster when many boxes pass the threshold.
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
        """All boxes and scores before suppression.

        Args:
            predictions: float32 [B, P, 4 + 1 + C].

        Returns:
            Boxes float32 [B, P, 4], `yxyx`, not clipped, and softmax scores float32 [B, P, C],
            without the background.
        """
        if predictions.shape[1] != len(self._default_boxes):
            raise ValueError(
                f"predictions have shape {predictions.shape}, but the config has "
                f"{len(self._default_boxes)} default boxes: decode with the model's own config"
            )
        offsets, logits = split_predictions(tf.cast(predictions, tf.float32))
        boxes = decode(offsets, self._default_boxes, self.config.variances)
        return boxes, tf.nn.softmax(logits)[..., 1:]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> dict[str, Any]:
        """Shapes of the dictionary's tensors."""
        batch, k = input_shape[0], self.max_detections
        return {
            "boxes": (batch, k, 4),
            "scores": (batch, k),
            "classes": (batch, k),
            "num_detections": (batch,),
        }

    def get_config(self) -> dict[str, Any]:
        """The arguments, as plain values."""
        return {
            "config": self.config.to_dict(),
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_detections": self.max_detections,
            "name": self.name,
        }


def unpad(outputs: dict[str, np.ndarray]) -> list[Detections]:
    """Batched and padded detections to those of each image.

    Args:
        outputs: `boxes` [B, K, 4], `scores` and `classes` [B, K] and `num_detections` [B]; the
            names may begin with `detection_`.
    """
    arrays = {name.removeprefix("detection_"): np.asarray(v) for name, v in outputs.items()}
    return [
        {name: arrays[name][i, : int(n)] for name in ("boxes", "scores", "classes")}
        for i, n in enumerate(arrays["num_detections"])
    ]
