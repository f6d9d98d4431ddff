"""The MultiBox loss with hard negative mining (section 2.2, "Training objective")."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.boxes import encode
from ssd_keras.config import CONFIGS, SSDConfig
from ssd_keras.config_files import ConfigLike, as_config
from ssd_keras.matching import match
from ssd_keras.predictions import split_predictions
from ssd_keras.tiling import default_boxes
from ssd_keras.truth import checked_truth


@keras.saving.register_keras_serializable(package="ssd_keras")
class MultiBoxLoss(keras.losses.Loss):
    """Localization loss plus confidence loss over matched default boxes and hard negatives.

    `y_true` is the ground truth, float32 [B, G, 5], rows (ymin, xmin, ymax, xmax, label); rows with
    label 0 are padding. `y_pred` is the predictions, float32 [B, P, 4 + 1 + C]. The loss is one
    value per image, float32 [B]. The mean of these values is (L_conf + alpha * L_loc) / N of
    equation 1, where N is the number of positives in the whole batch, over all replicas. An image
    without ground truth contributes 0, and a batch without positives has the loss 0.

    The metrics in `components` hold the mean localization loss, the mean confidence loss and the
    mean number of positives per batch. The model of `ssd_vgg16` reports them.

    The loss does not support `class_weight` of `fit`, which needs one label per image. With
    `compile(loss=[...])` the components are not reported.

    Args:
        config: Config of the model, its name or a `.json` file. Default: the config of the model
            that is compiled with the loss.
        iou_threshold: Smallest IoU in step 2 of `match`. All boxes that are not matched may be
            negatives. In the original these are two values, `overlap_threshold` and `neg_overlap`,
            both 0.5.
        negative_ratio: Number of negatives for each positive of an image. The negatives of largest
            loss are used.
        localization_weight: alpha of equation 1.
        border_boxes: Whether to use the default boxes that cross the border of the image. If False,
            as in Faster R-CNN and in half of table 3, they are neither positives nor negatives.
        name: Name of the loss.
        reduction: As in `keras.losses.Loss`. The default takes the mean that is described above.

    Raises:
        ValueError: If an argument is out of range. When the loss is called: if the shapes do not
            fit the config.
        tf.errors.InvalidArgumentError: When the loss is called: if a label is above C or a box is
            not in [0, 1]. XLA removes this check.

    Source: section 2.2, equations 1 to 3; `multibox_loss_layer.cpp` and `MineHardExamples` in
    `bbox_util.cpp` (normalization VALID, mining MAX_NEGATIVE).
    """

    def __init__(
        self,
        config: ConfigLike | None = None,
        iou_threshold: float = 0.5,
        negative_ratio: float = 3.0,
        localization_weight: float = 1.0,
        border_boxes: bool = True,
        name: str = "multibox_loss",
        reduction: str = "sum_over_batch_size",
    ) -> None:
        # float32 under any dtype policy: half precision is too coarse for a sum over 8732 boxes.
        super().__init__(name=name, reduction=reduction, dtype="float32")
        if isinstance(config, dict):
            config = SSDConfig.from_dict(config)
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold (={iou_threshold}) must be in (0, 1]")
        if negative_ratio <= 0 or localization_weight < 0:
            raise ValueError(
                f"negative_ratio (={negative_ratio}) must be above 0, and "
                f"localization_weight (={localization_weight}) must be at least 0"
            )
        self.iou_threshold = iou_threshold
        self.negative_ratio = negative_ratio
        self.localization_weight = localization_weight
        self.components = tuple(
            keras.metrics.Mean(name=n)
            for n in ("localization_loss", "confidence_loss", "positives")
        )
        self.border_boxes = border_boxes
        self.config: SSDConfig | None = None
        if config is not None:
            self.bind(as_config(config))

    def bind(self, config: SSDConfig) -> None:
        """Sets the config if the loss has none. The methods of a compiled model call this.

        Args:
            config: Config of the model.

        Raises:
            ValueError: If the loss has another config, or if `border_boxes` is False and no default
                box lies inside the image.
        """
        if self.config is not None:
            if self.config != config:
                names = {known: name for name, known in CONFIGS.items()}
                raise ValueError(
                    f"the loss has the config {names.get(self.config, self.config)}, but the model "
                    f"has {names.get(config, config)}: use MultiBoxLoss() without a config, which "
                    "takes that of the model"
                )
            return
        boxes = default_boxes(config)
        inside = np.all((boxes >= -1e-6) & (boxes <= 1 + 1e-6), axis=1)
        if not (self.border_boxes or inside.any()):
            raise ValueError("border_boxes (=False) leaves no default box: all cross the border")
        self._used = None if self.border_boxes or inside.all() else np.flatnonzero(inside)
        self._default_boxes = boxes if self._used is None else boxes[self._used]
        self.config = config

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss of each image; the class docstring gives the shapes."""
        config = self._check_shapes(y_true, y_pred)
        y_true = checked_truth(y_true, y_pred.shape[-1] - 5)
        if self._used is not None:
            y_pred = tf.gather(y_pred, self._used, axis=1)
        offsets, logits = split_predictions(y_pred)
        localization, confidence, positives = multibox_terms(
            y_true,
            offsets,
            logits,
            self._default_boxes,
            config.variances,
            self.iou_threshold,
            self.negative_ratio,
        )
        total = _sum_over_replicas(tf.reduce_sum(positives))
        # Keras will divide the sum by the number of images on all replicas. This factor undoes it.
        images = tf.cast(tf.shape(positives)[0] * _num_replicas(), tf.float32)
        scale = tf.math.divide_no_nan(images, total)
        localization, confidence = localization * scale, confidence * scale
        for metric, value in zip(self.components, (localization, confidence), strict=False):
            metric.update_state(tf.stop_gradient(value))
        # Keras may end an evaluation with an empty batch, which must not count in the mean.
        self.components[2].update_state(total, sample_weight=tf.cast(images > 0, tf.float32))
        return confidence + self.localization_weight * localization

    def _check_shapes(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> SSDConfig:
        if self.config is None:
            raise ValueError(
                "the loss has no config: compile a model of ssd_vgg16 with it, or give a config to "
                "MultiBoxLoss"
            )
        if y_true.shape.rank != 3 or y_true.shape[-1] != 5:
            raise ValueError(
                f"y_true has shape {y_true.shape}, but ground truth must be [B, G, 5]: "
                "ymin, xmin, ymax, xmax, label"
            )
        if y_pred.shape.rank != 3 or y_pred.shape[1] != self.config.num_default_boxes:
            raise ValueError(
                f"y_pred has shape {y_pred.shape}, but the config has "
                f"{self.config.num_default_boxes} default boxes: predictions must be "
                f"[B, {self.config.num_default_boxes}, 4 + 1 + C]; build the model with the same "
                "config"
            )
        return self.config

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the loss as JSON values."""
        return {
            "config": self.config and self.config.to_dict(),
            "iou_threshold": self.iou_threshold,
            "negative_ratio": self.negative_ratio,
            "localization_weight": self.localization_weight,
            "border_boxes": self.border_boxes,
            "name": self.name,
            "reduction": self.reduction,
        }


def multibox_terms(
    ground_truth: tf.Tensor,
    offsets: tf.Tensor,
    logits: tf.Tensor,
    default_boxes: tf.Tensor,
    variances: tuple[float, float, float, float],
    iou_threshold: float,
    negative_ratio: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the sums of equation 1 for each image, before the division by N.

    Args:
        ground_truth: float32 [B, G, 5], rows (ymin, xmin, ymax, xmax, label).
        offsets: float32 [B, P, 4], in the order (cy, cx, h, w) and divided by the variances.
        logits: float32 [B, P, 1 + C], background first.
        default_boxes: float32 [P, 4], `yxyx`.
        variances: Divisors of the offsets, in the order (cy, cx, h, w).
        iou_threshold: See `match`.
        negative_ratio: Number of negatives for each positive.

    Returns:
        Localization loss, confidence loss and number of positives, each float32 [B].

    Raises:
        ValueError: If `ground_truth` has another shape.

    Source: section 2.2, equations 1 to 3.
    """
    matched = tf.stop_gradient(match(ground_truth, default_boxes, iou_threshold))  # [B, P]
    positive = matched >= 0
    ground_truth = tf.pad(ground_truth, [[0, 0], [0, 1], [0, 0]])  # G may be 0
    own = tf.gather(ground_truth, tf.maximum(matched, 0), batch_dims=1)  # [B, P, 5]
    # For a negative, the default box itself is encoded. The offsets are then 0, not log(0).
    boxes = tf.where(positive[..., None], own[..., :4], default_boxes)
    labels = tf.where(positive, tf.cast(own[..., 4], tf.int32), 0)

    errors = smooth_l1(offsets - encode(boxes, default_boxes, variances))  # [B, P]
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)  # [B, P]
    num_positives = tf.reduce_sum(tf.cast(positive, tf.float32), axis=1)
    num_negatives = tf.cast(negative_ratio * num_positives, tf.int32)
    negative = hard_negatives(tf.stop_gradient(cross_entropy), ~positive, num_negatives)

    def over(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1)

    return over(positive, errors), over(positive | negative, cross_entropy), num_positives


def smooth_l1(difference: tf.Tensor) -> tf.Tensor:
    """Computes smooth L1, 0.5 x^2 for |x| < 1 and |x| - 0.5 otherwise, summed over the last axis.

    Args:
        difference: float32 [..., N].

    Returns:
        float32 [...].

    Source: Girshick, "Fast R-CNN", ICCV 2015, equation 3.
    """
    size = tf.abs(difference)
    return tf.reduce_sum(tf.where(size < 1, 0.5 * size * size, size - 0.5), axis=-1)


def hard_negatives(losses: tf.Tensor, eligible: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Selects the `count` eligible boxes of largest loss in each image.

    Of equal losses, the one with the lower index is selected first. The smallest selected loss is
    found by bisection, not by sorting: floats of at least 0 have the same order as their bits read
    as integers, and 31 steps find all 31 bits. The result is exact and has a static shape. Under
    XLA this is ten times faster than a sort.

    Args:
        losses: float32 [B, P], at least 0.
        eligible: bool [B, P], the boxes that may be selected.
        count: int32 [B], at least 0. If it exceeds the number of eligible boxes, all of them are
            selected.

    Returns:
        bool [B, P], the selected boxes.

    Source: `MineHardExamples` in Caffe's `bbox_util.cpp`.
    """
    bits = tf.where(eligible, tf.bitcast(tf.abs(losses), tf.int32), -1)

    def at_least(threshold: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(bits >= threshold[:, None], tf.int32), axis=1)

    # The largest threshold that at least `count` boxes reach, from the highest bit to the lowest.
    threshold = tf.zeros_like(count)
    for bit in reversed(range(31)):
        candidate = threshold + (1 << bit)
        threshold = tf.where(at_least(candidate) >= count, candidate, threshold)
    above = bits > threshold[:, None]
    tied = bits == threshold[:, None]
    room = count - tf.reduce_sum(tf.cast(above, tf.int32), axis=1)
    return above | (tied & (tf.cumsum(tf.cast(tied, tf.int32), axis=1) <= room[:, None]))


def _num_replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    # The context is None when Keras traces the loss before the training.
    if context is None or _num_replicas() == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
