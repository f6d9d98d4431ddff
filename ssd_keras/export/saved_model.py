"""The SavedModel: uint8 images or encoded files in, detections out; needs nothing but TensorFlow.

The contract of the signatures is in export/README.md.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ssd_keras.detections import (
    IOU_THRESHOLD,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    DetectionDecoder,
    unpad,
)
from ssd_keras.export.agreement import Agreement, compare, reference
from ssd_keras.export.checks import (
    check_agreement,
    check_free,
    class_labels,
    in_float32,
    sample_pictures,
    versions,
)
from ssd_keras.export.tolerances import SAVED_MODEL
from ssd_keras.files import atomic
from ssd_keras.images import warp

OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
_LABELS = "labels.txt"
_DESCRIPTION = "detector.json"


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
    freeze: bool = False,
    overwrite: bool = False,
) -> Agreement:
    """Writes a detector as a SavedModel, once it has been seen to detect as the Keras model does.

    Signatures, each with the outputs `detection_boxes` float32 [B, K, 4] (`yxyx` in [0, 1]),
    `detection_scores` float32 [B, K], `detection_classes` int32 [B, K] (from 1) and
    `num_detections` int32 [B]; rows from `num_detections` on are zero:

    - `serving_default`: `images` uint8 [B, S, S, 3], RGB.
    - `any_size`: `images` uint8 [B, H, W, 3], resized as in evaluation.
    - `encoded`: `image_bytes` string [B], each a JPEG, PNG, BMP (24 or 32 bits) or GIF (its first
      frame) of any size. One more output, `image_decoded` bool [B]: false for bytes that are no
      picture, which has no detections and leaves the rest of the batch alone. EXIF orientation is
      ignored, as in training: boxes refer to the pixels as stored.

    Args:
        model: A model of `ssd_vgg16`; one of mixed precision is exported in float32.
        path: Folder to make.
        labels: Names of the C classes, which travel along as an asset; by default the model's own.
        score_threshold: See `DetectionDecoder`, as the next two.
        iou_threshold: In (0, 1].
        max_detections: K.
        freeze: Store the weights as constants of the graph instead of variables.
        overwrite: Replace an earlier export in `path`.

    Returns:
        How the file's detections on three built-in pictures agree with the Keras model's; if the
        model finds nothing on them, its `is_empty` is true and a warning is logged.

    Raises:
        ValueError: If model and labels do not fit, a weight is not finite, or `path` is in
            use.
        RuntimeError: If the written detector differs from the model by more than 1e-4; nothing
            is left in `path`.
    """
    labels = class_labels(model, labels)
    config = model.ssd_config
    model = in_float32(model)
    decoder = DetectionDecoder(config, score_threshold, iou_threshold, max_detections)
    path = check_free(path, overwrite, "saved_model.pb")
    description = {
        "labels": labels,
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "max_detections": max_detections,
        "frozen": freeze,
        "config": config.to_dict(),
        "versions": versions(),
    }
    with atomic(path) as folder, tempfile.TemporaryDirectory() as temporary:
        assets = Path(temporary)
        (assets / _LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
        (assets / _DESCRIPTION).write_text(json.dumps(description, indent=1), "utf-8")
        detector = _Detector(model, decoder, freeze, assets)
        tf.saved_model.save(detector, str(folder), signatures=detector.signatures())
        agreement = verify_saved_model(folder, model, decoder)
        check_agreement(path, agreement, SAVED_MODEL)
    return agreement


def verify_saved_model(
    folder: str | os.PathLike[str], model: keras.Model, decoder: DetectionDecoder
) -> Agreement:
    """Compares a SavedModel's detections on the sample pictures with the Keras model's."""
    pictures = sample_pictures()
    images = np.stack([warp(picture, decoder.config.image_size) for picture in pictures])
    outputs = tf.saved_model.load(str(folder)).signatures["encoded"](
        image_bytes=tf.constant(pictures)
    )
    return compare(reference(model, decoder, images), unpad(outputs), decoder, SAVED_MODEL)


class _Detector(tf.Module):
    """The graph functions around one shared core, and the variables and files they need.

    The Keras model itself is not an attribute: tracked, it would store the weights twice and ask
    for Keras when loaded.
    """

    def __init__(
        self, model: keras.Model, decoder: DetectionDecoder, freeze: bool, assets: Path
    ) -> None:
        super().__init__(name="detector")
        size = decoder.config.image_size
        self._size = size
        self.labels = tf.saved_model.Asset(str(assets / _LABELS))
        self.description = tf.saved_model.Asset(str(assets / _DESCRIPTION))

        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32, "images")])
        def core(images: tf.Tensor) -> list[tf.Tensor]:
            found = decoder(model(images, training=False))
            return [found[name.removeprefix("detection_")] for name in OUTPUTS]

        if freeze:
            self._core = convert_variables_to_constants_v2(core.get_concrete_function())
        else:
            self._core = core
            self._weights = [variable.value for variable in model.variables]

    def signatures(self) -> dict[str, Any]:
        """The three endpoints by name."""
        size = self._size
        specs = {
            "serving_default": (self.detect, tf.TensorSpec([None, size, size, 3], tf.uint8)),
            "any_size": (self.detect_any_size, tf.TensorSpec([None, None, None, 3], tf.uint8)),
            "encoded": (self.detect_encoded, tf.TensorSpec([None], tf.string)),
        }
        return {
            name: function.get_concrete_function(spec) for name, (function, spec) in specs.items()
        }

    @tf.function
    def detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        images = _checked(images, self._size)
        return self._detect(tf.cast(images, tf.float32))

    @tf.function
    def detect_any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        size = [self._size, self._size]
        images = _checked(images, None)
        return self._detect(tf.image.resize(images, size, "bilinear", antialias=False))

    @tf.function
    def detect_encoded(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        size = self._size
        given = _of_any_shape(image_bytes)
        # Not by its rank, which is taken for known: that check would be optimised away.
        shape = tf.concat([tf.shape(given), [-1, -1]], axis=0)[:2]
        check = tf.debugging.assert_equal(
            shape, [tf.size(given), -1], message="image_bytes must be [B]"
        )
        with tf.control_dependencies([check]):
            image_bytes = tf.reshape(given, [-1])  # so that the check is the first to fail
        spec = (tf.TensorSpec([size, size, 3], tf.float32), tf.TensorSpec([], tf.bool))
        images, decoded = tf.map_fn(self._read, image_bytes, fn_output_signature=spec)
        outputs = self._detect(images)
        for name, value in outputs.items():
            keep = tf.reshape(decoded, [-1] + [1] * (value.shape.rank - 1))
            outputs[name] = tf.where(keep, value, tf.zeros_like(value))
        return {**outputs, "image_decoded": decoded}

    def _read(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The picture and True; or black and False, since a data set can drop what fails."""
        read = tf.data.Dataset.from_tensors(image_bytes).map(lambda b: (warp(b, self._size), True))
        black = tf.data.Dataset.from_tensors((tf.zeros([self._size, self._size, 3]), False))
        return read.ignore_errors().concatenate(black).take(1).get_single_element()

    def _detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow's oneDNN convolutions cannot take an empty batch on every CPU: one black
        # image stands in for none.
        count = tf.shape(images)[0]
        images = tf.pad(images, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        outputs = [output[:count] for output in self._core(images)]
        return dict(zip(OUTPUTS, outputs, strict=True))


def _checked(images: tf.Tensor, size: int | None) -> tf.Tensor:
    """The images, if at run time they are [B, size, size, 3]; else the server's client is told.

    TensorFlow itself does not hold the caller of a signature to its shape.
    """
    shape = tf.concat([tf.shape(_of_any_shape(images)), [0, 0, 0]], axis=0)[1:5]  # of any rank
    height, width = (size, size) if size else tf.unstack(tf.maximum(shape[:2], 1), 2)
    message = f"images must be [B, {size or 'H'}, {size or 'W'}, 3]"
    message += "; signature any_size takes other sizes" if size else ", H and W above 0"
    check = tf.debugging.assert_equal(shape, [height, width, 3, 0], message=message)
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _of_any_shape(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor; checks on one of known shape would be optimised away."""
    return tf.compat.v1.placeholder_with_default(tensor, shape=None)
