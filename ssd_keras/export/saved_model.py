"""Exports a model as a SavedModel that takes images or encoded files and returns detections.

TensorFlow alone runs the SavedModel; it needs neither Keras nor this package. `export_saved_model`
documents the signatures.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

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
    in_bfloat16,
    in_float32,
    sample_pictures,
    versions,
    warn_if_bfloat16_is_slow,
)
from ssd_keras.export.descriptions import DESCRIPTION, LABELS
from ssd_keras.export.tolerances import SAVED_MODEL, SAVED_MODEL_PRECISIONS
from ssd_keras.files import atomic
from ssd_keras.images import MAX_PIXELS, warp

OUTPUTS = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
    freeze: bool = False,
    precision: str = "float32",
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> Agreement:
    """Exports a detector as a SavedModel, and checks that it agrees with the Keras model.

    The SavedModel has four signatures:

    - `serving_default` takes `images` uint8 [B, S, S, 3], RGB.
    - `any_size` takes `images` uint8 [B, H, W, 3], RGB, and resizes them as evaluation does.
    - `resized` takes `images` float32 [B, S, S, 3], RGB 0..255, which the caller has resized. It is
      for loops that decode and resize images in other threads.
    - `encoded` takes `image_bytes` string [B]. Each element is a JPEG, PNG, BMP (24 or 32 bits) or
      GIF file (the first frame is used) of any size. The EXIF orientation is ignored, as in
      training, so boxes refer to the image as stored.

    All signatures return these outputs; rows from `num_detections` on are zero:

    - `detection_boxes` float32 [B, K, 4], `yxyx`, normalized and clipped to [0, 1].
    - `detection_scores` float32 [B, K], in descending order.
    - `detection_classes` int32 [B, K], starting at 1.
    - `num_detections` int32 [B].

    `encoded` also returns `image_decoded` bool [B]. It is False for bytes that are not a valid
    image, and for images of more than `max_pixels` pixels, which are not decoded. Such an element
    has no detections, and the other elements of the batch are not affected.

    Labels, thresholds and config are stored as the assets `labels.txt` and `detector.json`.

    Args:
        model: A model of `ssd_vgg16`, of any dtype policy.
        path: Folder to create.
        labels: Names of the C classes. Default: the labels stored in the model.
        score_threshold: Minimum score of a detection, exclusive, in [0, 1).
        iou_threshold: A box is suppressed if its IoU with a better box of its class is above this
            value, in (0, 1].
        max_detections: K, the maximum number of detections per image.
        freeze: Whether to store the weights as constants of the graph instead of variables.
        precision: "float32", or "bfloat16" for half the time on processors with instructions for
            it. Then all layers before the heads compute in bfloat16 and have their weights in it;
            heads, decoding and suppression stay in float32. On other processors a warning is
            logged, since bfloat16 is slower there.
        max_pixels: Limit for the height times the width of an image of the signature `encoded`.
        overwrite: Whether to replace an earlier export in `path`.

    Returns:
        The agreement between the SavedModel and the Keras model on three synthetic images. If the
        model detects nothing on them, `is_empty` is True and a warning is logged.

    Raises:
        ValueError: If `model` is not an SSD, a weight is not finite, the labels do not match the
            model, a threshold, a limit or `precision` is not valid, or `path` is not free (see
            `check_free`).
        RuntimeError: If the SavedModel differs from the model in float32 by more than the tolerance
            of its precision (`export.tolerances.SAVED_MODEL`). Nothing is written to `path` then.
    """
    labels = class_labels(model, labels)
    if max_pixels < 1:
        raise ValueError(f"max_pixels (={max_pixels}) must be at least 1")
    if precision not in SAVED_MODEL:
        raise ValueError(
            f"precision (={precision!r}) must be one of {', '.join(SAVED_MODEL_PRECISIONS)}; for "
            "8 bits use export_tflite"
        )
    config = model.ssd_config
    model = exported = in_float32(model)
    if precision == "bfloat16":
        warn_if_bfloat16_is_slow()
        exported = in_bfloat16(model)
    decoder = DetectionDecoder(config, score_threshold, iou_threshold, max_detections)
    path = check_free(path, overwrite, "saved_model.pb")
    description = {
        "labels": labels,
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "max_detections": max_detections,
        "max_pixels": max_pixels,
        "num_classes": len(labels),
        "precision": precision,
        "frozen": freeze,
        "config": config.to_dict(),
        "versions": versions(),
    }
    with atomic(path) as folder, tempfile.TemporaryDirectory() as temporary:
        assets = Path(temporary)
        (assets / LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
        (assets / DESCRIPTION).write_text(json.dumps(description, indent=1), "utf-8")
        detector = _Detector(exported, decoder, freeze, assets, max_pixels)
        tf.saved_model.save(detector, str(folder), signatures=detector.signatures())
        agreement = verify_saved_model(folder, model, decoder, precision)
        check_agreement(path, agreement, SAVED_MODEL[precision])
    return agreement


def verify_saved_model(
    folder: str | os.PathLike[str],
    model: keras.Model,
    decoder: DetectionDecoder,
    precision: str = "float32",
) -> Agreement:
    """Compares a SavedModel with the Keras model on the images of `sample_pictures`.

    Args:
        folder: Folder of the SavedModel.
        model: The Keras model, in float32.
        decoder: The decoder that was exported with the model.
        precision: The precision of the SavedModel, which gives the tolerance.

    Returns:
        The agreement, compared with the tolerance of the precision.
    """
    pictures = sample_pictures()
    images = np.stack([warp(picture, decoder.config.image_size) for picture in pictures])
    outputs = tf.saved_model.load(str(folder)).signatures["encoded"](
        image_bytes=tf.constant(pictures)
    )
    tolerance = SAVED_MODEL[precision]
    return compare(reference(model, decoder, images), unpad(outputs), decoder, tolerance)


class _Detector(tf.Module):
    """The functions of the signatures, and the variables and assets that they need.

    All functions call one function, the core (network and decoder), so that the graph contains the
    network only once. The Keras model must not be an attribute: TensorFlow would track it, store
    the weights twice and require Keras for loading.
    """

    def __init__(
        self,
        model: keras.Model,
        decoder: DetectionDecoder,
        freeze: bool,
        assets: Path,
        max_pixels: int,
    ) -> None:
        super().__init__(name="detector")
        size = decoder.config.input_size
        self._size = size
        self._max_pixels = max_pixels
        self.labels = tf.saved_model.Asset(str(assets / LABELS))
        self.description = tf.saved_model.Asset(str(assets / DESCRIPTION))

        @tf.function(
            input_signature=[tf.TensorSpec([None, *size, 3], tf.float32, "images")],
            autograph=False,
        )
        def core(images: tf.Tensor) -> list[tf.Tensor]:
            found = decoder(model(images, training=False))
            return [found[name.removeprefix("detection_")] for name in OUTPUTS]

        if freeze:
            self._core = convert_variables_to_constants_v2(core.get_concrete_function())
        else:
            self._core = core
            self._weights = [variable.value for variable in model.variables]

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the functions of the signatures by name."""
        size = self._size
        specs = {
            "serving_default": (self.detect, tf.TensorSpec([None, *size, 3], tf.uint8)),
            "any_size": (self.detect_any_size, tf.TensorSpec([None, None, None, 3], tf.uint8)),
            "resized": (self.detect_resized, tf.TensorSpec([None, *size, 3], tf.float32)),
            "encoded": (self.detect_encoded, tf.TensorSpec([None], tf.string)),
        }
        return {
            name: function.get_concrete_function(spec) for name, (function, spec) in specs.items()
        }

    @tf.function(autograph=False)
    def detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `serving_default`; see `export_saved_model`."""
        images = _checked(images, self._size)
        return self._detect(tf.cast(images, tf.float32))

    @tf.function(autograph=False)
    def detect_any_size(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `any_size`; see `export_saved_model`."""
        images = _checked(images, None)
        return self._detect(tf.image.resize(images, self._size, "bilinear", antialias=False))

    @tf.function(autograph=False)
    def detect_resized(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `resized`; see `export_saved_model`."""
        return self._detect(_checked(images, self._size))

    @tf.function(autograph=False)
    def detect_encoded(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Signature `encoded`; see `export_saved_model`."""
        size = self._size
        given = _hide_static_shape(image_bytes)
        # Only for a vector is this shape [B, -1]. TensorFlow would remove an assertion on tf.rank
        # from the graph, because the signature makes the rank known.
        shape = tf.concat([tf.shape(given), [-1, -1]], axis=0)[:2]
        check = tf.debugging.assert_equal(
            shape, [tf.size(given), -1], message="image_bytes must be [B]"
        )
        with tf.control_dependencies([check]):
            image_bytes = tf.reshape(given, [-1])  # runs after the check, for any rank
        spec = (tf.TensorSpec([*size, 3], tf.float32), tf.TensorSpec([], tf.bool))
        images, decoded = tf.map_fn(self._read, image_bytes, fn_output_signature=spec)
        outputs = self._detect(images)
        for name, value in outputs.items():
            keep = tf.reshape(decoded, [-1] + [1] * (value.shape.rank - 1))
            outputs[name] = tf.where(keep, value, tf.zeros_like(value))
        return {**outputs, "image_decoded": decoded}

    def _read(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes one image: (pixels, True), or (zeros, False) if the bytes are not an image.

        A tf.data pipeline can ignore errors. With `tf.map_fn` alone, one invalid image would make
        the whole batch fail.
        """
        read = tf.data.Dataset.from_tensors(image_bytes)
        read = read.map(lambda b: (warp(b, self._size, self._max_pixels), True))
        black = tf.data.Dataset.from_tensors((tf.zeros([*self._size, 3]), False))
        return read.ignore_errors().concatenate(black).take(1).get_single_element()

    def _detect(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        # On some CPUs, TensorFlow's oneDNN convolutions fail for an empty batch. A black image is
        # therefore added to an empty batch, and its outputs are removed.
        count = tf.shape(images)[0]
        images = tf.pad(images, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        outputs = [output[:count] for output in self._core(images)]
        return dict(zip(OUTPUTS, outputs, strict=True))


def _checked(images: tf.Tensor, size: tuple[int, int] | None) -> tf.Tensor:
    """Returns the images after an assertion that their shape is [B, height, width, 3].

    TensorFlow does not check the shape of the arguments of a signature.

    Args:
        images: uint8 or float32, of any shape at run time.
        size: (height, width), or None if any height and width above 0 are allowed.
    """
    # The padding makes the slice valid for any rank; it is [H, W, 3, 0] for a batch of images.
    shape = tf.concat([tf.shape(_hide_static_shape(images)), [0, 0, 0]], axis=0)[1:5]
    height, width = size or tf.unstack(tf.maximum(shape[:2], 1), 2)
    message = "images must be [B, {}, {}, 3]".format(*size or "HW")
    message += "; signature any_size takes other sizes" if size else ", H and W above 0"
    check = tf.debugging.assert_equal(shape, [height, width, 3, 0], message=message)
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _hide_static_shape(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the tensor with unknown static shape, so that its shape checks stay in the graph."""
    return tf.compat.v1.placeholder_with_default(tensor, shape=None)
