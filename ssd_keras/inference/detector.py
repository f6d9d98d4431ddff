"""A common interface for Keras, SavedModel and TFLite detectors."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from ssd_keras.config import SSDConfig
from ssd_keras.detections import DetectionDecoder, Detections, unpad
from ssd_keras.export.descriptions import (
    is_described,
    saved_model_description,
    saved_model_labels,
)
from ssd_keras.files import reading
from ssd_keras.images import MAX_PIXELS, resized, warp
from ssd_keras.model import SSD, load_model


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """A trained detector of any format.

    Attributes:
        labels: Class names; `labels[0]` is class 1.
        run: Function from encoded images, string [B], to padded detections as tensors or arrays:
            `boxes` [B, K, 4], `scores` [B, K], `classes` [B, K] and `num_detections` [B]. The names
            may begin with `detection_`. `image_decoded` bool [B] is optional.
        config: Config of the model, or None if the file does not contain it.
        run_pixels: Function from the results of `prepare` to the detections of each image. If it is
            None, `detect_pixels` encodes the images as PNG for `run`.
        max_pixels: Limit for the height times the width of an image.
        prepare: Function that a thread may call before `run_pixels`, for each image uint8
            [H, W, 3] RGB. It resizes the image, if the detector takes images of one size.
    """

    labels: tuple[str, ...]
    run: Callable[[tf.Tensor], dict[str, tf.Tensor | np.ndarray]]
    config: SSDConfig | None = None
    run_pixels: Callable[[Sequence[Any]], list[Detections]] | None = None
    max_pixels: int = MAX_PIXELS
    prepare: Callable[[np.ndarray], Any] = lambda image: image

    def detect(self, images: Sequence[bytes]) -> list[Detections]:
        """Detects on a batch of images.

        Args:
            images: Encoded images (JPEG, PNG, BMP or GIF) of any size.

        Returns:
            For each image: `boxes` float32 [N, 4], normalized `yxyx`; `scores` float32 [N], in
            descending order; and `classes` int32 [N], starting at 1.

        Raises:
            ValueError: If an image cannot be decoded or is too large, or the detector has more
                classes than labels.
        """
        if not images:
            return []
        try:
            outputs = self.run(tf.constant(images, tf.string))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(f"one of {len(images)} images cannot be decoded") from error
        if not np.all(outputs.get("image_decoded", True)):
            raise ValueError(f"one of {len(images)} images cannot be decoded")
        found = unpad(outputs)
        largest = max((int(image["classes"].max(initial=0)) for image in found), default=0)
        if largest > len(self.labels):
            raise ValueError(
                f"the model detects class {largest}, but has {len(self.labels)} labels: its labels "
                "are damaged; export it again"
            )
        return found

    def detect_pixels(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detects on decoded images, such as frames of a video.

        Args:
            images: Each uint8 [H, W, 3] RGB, of any size.

        Returns:
            For each image the dictionary of `detect`.

        Raises:
            ValueError: If `run_pixels` is None, as in `detect`.
        """
        return self.detect_prepared([self.prepare(image) for image in images])

    def detect_prepared(self, images: Sequence[Any]) -> list[Detections]:
        """Detects on images that `prepare` returned; see `detect_pixels`."""
        if not images:
            return []
        if self.run_pixels is not None:
            return self.run_pixels(images)
        return self.detect([tf.io.encode_png(image).numpy() for image in images])


def load_detector(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Detector:
    """Loads a detector from a `.keras` file, a SavedModel or a TFLite file.

    Args:
        path: A `.keras` file of an `ssd_vgg16` model, the folder of `export_saved_model`, or a
            `.tflite` file of `export_tflite`. A SavedModel is a program that TensorFlow runs. If it
            lacks the description that `export_saved_model` writes, a warning is logged.
        max_pixels: Limit for the height times the width of an image. For a SavedModel, the limit
            is the smaller of this value and the limit at export.

    Returns:
        The detector.

    Raises:
        FileNotFoundError: If `path` does not exist, or a SavedModel lacks its labels.
        ImportError: If `path` is a TFLite file and ai_edge_litert is not installed.
        ValueError: If `path` is another kind of file or folder, or is damaged.
    """
    path = Path(path)
    if max_pixels < 1:
        raise ValueError(f"max_pixels (={max_pixels}) must be at least 1")
    if not path.exists():
        raise FileNotFoundError(f"model {path} does not exist: train or export one first")
    if path.is_dir():
        return _saved_model_detector(path, max_pixels)
    if path.suffix == ".tflite":
        return _tflite_detector(path, max_pixels)
    if path.suffix != ".keras":
        raise ValueError(
            f"model {path} must be a .keras file, a .tflite file or a SavedModel folder"
        )
    return keras_detector(load_model(path), max_pixels=max_pixels)


def keras_detector(
    model: keras.Model, decoder: DetectionDecoder | None = None, *, max_pixels: int = MAX_PIXELS
) -> Detector:
    """Creates a detector from a Keras model.

    Args:
        model: A model of `ssd_vgg16`. If it has no labels, its classes are named "class 1",
            "class 2" and so on.
        decoder: The decoder of its predictions. Default: a decoder with the default thresholds.
        max_pixels: Limit for the height times the width of an image.

    Returns:
        The detector. It uses the weights that the model has at the time of a call.

    Raises:
        ValueError: If `model` was not made by `ssd_vgg16`.
    """
    if not isinstance(model, SSD):
        raise ValueError(f"model {model.name!r} is not an SSD: it must be made by ssd_vgg16")
    predictions = model.get_layer("predictions")
    numbered = tuple(f"class {k}" for k in range(1, predictions.num_classes + 1))
    size = predictions.ssd_config.input_size
    decode = decoder or DetectionDecoder(predictions.ssd_config)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def run(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = tf.TensorSpec([*size, 3], tf.float32)
        images = tf.map_fn(
            lambda image: warp(image, size, max_pixels), encoded, fn_output_signature=spec
        )
        return decode(model(images, training=False))

    @tf.function(input_signature=[tf.TensorSpec([None, *size, 3], tf.float32)], autograph=False)
    def run_resized(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return decode(model(images, training=False))

    def run_pixels(images: Sequence[tf.Tensor]) -> list[Detections]:
        return unpad(run_resized(tf.stack(images)))

    labels = predictions.labels or numbered
    config = predictions.ssd_config
    return Detector(labels, run, config, run_pixels, max_pixels, _resizing(size))


def _saved_model_detector(path: Path, max_pixels: int) -> Detector:
    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"model {path} is a folder without saved_model.pb, not a SavedModel")
    labels = saved_model_labels(path)
    description: dict[str, Any] = {}  # a SavedModel of other code has no description
    if is_described(path):
        description = saved_model_description(path)
        max_pixels = min(max_pixels, description.get("max_pixels", max_pixels))
    else:
        logging.warning(
            "model %s was not written by export_saved_model: a SavedModel is a program, which runs "
            "with your rights; load only files that you trust",
            path,
        )
    with reading(path, "export the model again"):
        loaded = tf.saved_model.load(str(path))
    if "encoded" not in loaded.signatures:
        raise ValueError(
            f"model {path} has the signatures {sorted(loaded.signatures)}, but must have "
            "'encoded': export it with export_saved_model"
        )

    def run(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        # `loaded` owns the variables: this reference to it keeps them alive.
        return loaded.signatures["encoded"](image_bytes=encoded)

    def run_pixels(images: Sequence[np.ndarray]) -> list[Detections]:
        by_shape: dict[tuple[int, ...], list[int]] = {}  # images of the same size form a batch
        for number, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(number)
        found: dict[int, Detections] = {}
        for numbers in by_shape.values():
            batch = tf.constant(np.stack([images[k] for k in numbers]))
            outputs = unpad(loaded.signatures["any_size"](images=batch))
            found.update(zip(numbers, outputs, strict=True))
        return [found[k] for k in range(len(images))]

    def run_resized(images: Sequence[tf.Tensor]) -> list[Detections]:
        return unpad(loaded.signatures["resized"](images=tf.stack(images)))

    config = _config(description)
    if "resized" in loaded.signatures:  # missing from files of earlier versions
        _, arguments = loaded.signatures["resized"].structured_input_signature
        prepare = _resizing(tuple(arguments["images"].shape[1:3]))
        return Detector(labels, run, config, run_resized, max_pixels, prepare)
    by_pixels = run_pixels if "any_size" in loaded.signatures else None
    return Detector(labels, run, config, by_pixels, max_pixels)


def _tflite_detector(path: Path, max_pixels: int) -> Detector:
    # Imported here because it takes a second, and other formats do not need LiteRT.
    from ssd_keras.export.tflite.interpreter import TFLiteDetector

    with reading(path, "export the model again"):
        detector = TFLiteDetector(path)

    def run(encoded: tf.Tensor) -> dict[str, np.ndarray]:
        """Runs the images one by one, since the batch size of the file is 1."""
        images = [warp(image, detector.image_size, max_pixels).numpy() for image in encoded]
        outputs = [detector.padded(image) for image in images]
        return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}

    def run_pixels(images: Sequence[tf.Tensor]) -> list[Detections]:
        return [unpad(detector.padded(image.numpy()))[0] for image in images]

    labels = tuple(detector.description["labels"])
    config = _config(detector.description)
    prepare = _resizing(detector.image_size)
    return Detector(labels, run, config, run_pixels, max_pixels, prepare)


def _resizing(size: int | tuple[int, int]) -> Callable[[np.ndarray], tf.Tensor]:
    """Returns a function that resizes an image, as one call of a graph."""
    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    resize: Callable[[np.ndarray], tf.Tensor] = tf.function(
        lambda image: resized(image, size), input_signature=[spec]
    )
    return resize


def _config(description: dict[str, Any]) -> SSDConfig | None:
    return SSDConfig.from_dict(description["config"]) if "config" in description else None
