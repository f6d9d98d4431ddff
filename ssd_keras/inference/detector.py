"""One face for all kinds of trained detector: a `.keras` file, a SavedModel and a TFLite file."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.detections import DetectionDecoder, unpad
from ssd_keras.export.descriptions import saved_model_labels
from ssd_keras.images import warp
from ssd_keras.model import SSD, load_model


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A trained detector of any kind.

    Attributes:
        labels: Class names; `labels[0]` is class 1.
        run: From encoded images, string `[B]`, to padded detections: `boxes` `[B, K, 4]`, `scores`
            and `classes` `[B, K]`, `num_detections` `[B]`; names may begin with `detection_`.
    """

    labels: tuple[str, ...]
    run: Callable[[tf.Tensor], dict[str, Any]]

    def detect(self, images: Sequence[bytes]) -> list[dict[str, np.ndarray]]:
        """Detects on a batch of images.

        Args:
            images: Encoded (JPEG, PNG, BMP or GIF), of any size.

        Returns:
            For each image `boxes` float32 `[N, 4]` (normalised yxyx), `scores` float32 `[N]`,
            falling, and `classes` int32 `[N]`, from 1.

        Raises:
            ValueError: If an image does not decode.
        """
        if not images:
            return []
        try:
            outputs = self.run(tf.constant(images, tf.string))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"one of {len(images)} images does not decode") from error
        if not np.all(outputs.get("image_decoded", True)):
            raise ValueError(f"one of {len(images)} images does not decode")
        return unpad(outputs)


def load_detector(path: str | os.PathLike[str]) -> Detector:
    """Loads a `.keras` file of `ssd_vgg16`, or what the exporters made of one.

    Args:
        path: The `.keras` file, the folder of a SavedModel or the `.tflite` file.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"model {path} does not exist: train or export one first")
    if path.is_dir():
        return _saved_model_detector(path)
    if path.suffix == ".tflite":
        return _tflite_detector(path)
    if path.suffix != ".keras":
        raise ValueError(
            f"model {path} must be a .keras file, a .tflite file or the folder of a SavedModel"
        )
    return keras_detector(load_model(path))


def keras_detector(model: keras.Model, decoder: DetectionDecoder | None = None) -> Detector:
    """Makes a detector of a model of `ssd_vgg16`.

    Args:
        model: The model.
        decoder: Its decoder; by default one with the default thresholds.

    Raises:
        ValueError: If `model` is another kind of model.
    """
    if not isinstance(model, SSD):
        raise ValueError(f"model {model.name!r} is no SSD: it must be made by ssd_vgg16")
    predictions = model.get_layer("predictions")
    numbered = tuple(f"class {k}" for k in range(1, predictions.num_classes + 1))
    size = predictions.ssd_config.image_size
    decode = decoder or DetectionDecoder(predictions.ssd_config)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = tf.TensorSpec([size, size, 3], tf.float32)
        images = tf.map_fn(lambda image: warp(image, size), encoded, fn_output_signature=spec)
        return decode(model(images, training=False))

    return Detector(predictions.labels or numbered, run)


def _saved_model_detector(path: Path) -> Detector:
    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"model {path} is a folder without saved_model.pb, not a SavedModel")
    labels = saved_model_labels(path)
    loaded = tf.saved_model.load(str(path))
    if "encoded" not in loaded.signatures:
        raise ValueError(
            f"model {path} has the signatures {sorted(loaded.signatures)}, but must have "
            "'encoded': export it with export_saved_model"
        )

    def run(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        # `loaded` must stay alive as long as its signature: it owns the variables.
        return loaded.signatures["encoded"](image_bytes=encoded)

    return Detector(labels, run)


def _tflite_detector(path: Path) -> Detector:
    # Loading LiteRT takes a second, and no other kind of file needs it.
    from ssd_keras.export.tflite.interpreter import TFLiteDetector

    detector = TFLiteDetector(path)

    def run(encoded: tf.Tensor) -> dict[str, np.ndarray]:
        """Image by image, since the file takes one."""
        images = [warp(image, detector.image_size).numpy() for image in encoded]
        outputs = [detector.padded(image) for image in images]
        return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}

    return Detector(tuple(detector.description["labels"]), run)
