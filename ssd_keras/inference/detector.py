"""A common interface for Keras, SavedModel and TFLite detectors."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.detections import DetectionDecoder, Detections, unpad
from ssd_keras.export.descriptions import saved_model_labels
from ssd_keras.images import warp
from ssd_keras.model import SSD, load_model


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A trained detector of any format.

    Attributes:
        labels: Class names; `labels[0]` is class 1.
        run: Function from encoded images, string [B], to padded detections as tensors or arrays:
            `boxes` [B, K, 4], `scores` [B, K], `classes` [B, K] and `num_detections` [B]. The names
            may begin with `detection_`.
    """

    labels: tuple[str, ...]
    run: Callable[[tf.Tensor], dict[str, tf.Tensor | np.ndarray]]

    def detect(self, images: Sequence[bytes]) -> list[Detections]:
        """Detects on a batch of images.

        Args:
            images: Encoded images (JPEG, PNG, BMP or GIF) of any size.

        Returns:
            For each image: `boxes` float32 [N, 4], normalized `yxyx`; `scores` float32 [N], in
            descending order; and `classes` int32 [N], starting at 1.

        Raises:
            ValueError: If an image cannot be decoded.
        """
        if not images:
            return []
        try:
            outputs = self.run(tf.constant(images, tf.string))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"one of {len(images)} images cannot be decoded") from error
        if not np.all(outputs.get("image_decoded", True)):
            raise ValueError(f"one of {len(images)} images cannot be decoded")
        return unpad(outputs)


def load_detector(path: str | os.PathLike[str]) -> Detector:
    """Loads a detector from a `.keras` file, a SavedModel or a TFLite file.

    Args:
        path: A `.keras` file of an `ssd_vgg16` model, the folder of `export_saved_model`, or a
            `.tflite` file of `export_tflite`.

    Raises:
        FileNotFoundError: If `path` does not exist, or a SavedModel lacks its labels.
        ImportError: If `path` is a TFLite file and ai_edge_litert is not installed.
        ValueError: If `path` is another kind of file or folder.
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
            f"model {path} must be a .keras file, a .tflite file or a SavedModel folder"
        )
    return keras_detector(load_model(path))


def keras_detector(model: keras.Model, decoder: DetectionDecoder | None = None) -> Detector:
    """Creates a detector from a Keras model.

    Args:
        model: A model of `ssd_vgg16`. If it has no labels, its classes are named "class 1",
            "class 2" and so on.
        decoder: The decoder of its predictions. Default: a decoder with the default thresholds.

    Raises:
        ValueError: If `model` was not made by `ssd_vgg16`.
    """
    if not isinstance(model, SSD):
        raise ValueError(f"model {model.name!r} is not an SSD: it must be made by ssd_vgg16")
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
        # `loaded` owns the variables: this reference to it keeps them alive.
        return loaded.signatures["encoded"](image_bytes=encoded)

    return Detector(labels, run)


def _tflite_detector(path: Path) -> Detector:
    # Imported here because it takes a second, and other formats do not need LiteRT.
    from ssd_keras.export.tflite.interpreter import TFLiteDetector

    detector = TFLiteDetector(path)

    def run(encoded: tf.Tensor) -> dict[str, np.ndarray]:
        """Runs the images one by one, since the batch size of the file is 1."""
        images = [warp(image, detector.image_size).numpy() for image in encoded]
        outputs = [detector.padded(image) for image in images]
        return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}

    return Detector(tuple(detector.description["labels"]), run)
