"""One face for all kinds of trained detector: a `.keras` file, a SavedModel and a TFLite file."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.agreement import unpad
from ssd_keras.class_names import is_unused
from ssd_keras.detections import DetectionDecoder
from ssd_keras.model import SSD, load_model
from ssd_keras.pipeline import warp
from ssd_keras.records import Sample, read_card, read_samples
from ssd_keras.serving import saved_model_labels
from ssd_keras.tflite_runtime import TFLiteDetector

T = TypeVar("T")


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
    detector = TFLiteDetector(path)

    def run(encoded: tf.Tensor) -> dict[str, np.ndarray]:
        """Image by image, since the file takes one."""
        images = [warp(image, detector.image_size).numpy() for image in encoded]
        outputs = [detector.padded(image) for image in images]
        return {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}

    return Detector(tuple(detector.description["labels"]), run)


def detect_records(
    detector: Detector, records: str | os.PathLike[str], batch_size: int = 8
) -> tuple[list[dict[str, np.ndarray]], list[Sample], float]:
    """Detects on a record set, with a progress bar.

    Args:
        detector: Must know the same classes as the records, in any order; ids that COCO does not
            use may be among them.
        records: Folder of the record set.
        batch_size: Images at once.

    Returns:
        The detections, their classes as the records number them, and the samples without their
        images, both in stored order, and the seconds that detection took, from encoded images on.

    Raises:
        ValueError: If the detector's labels are not those of the records.
    """
    card = read_card(records)
    label_ids = record_label_ids(detector.labels, card.labels)
    detections: list[dict[str, np.ndarray]] = []
    samples: list[Sample] = []
    seconds = 0.0
    bar = progress_bar(card.num_images)
    for batch in batched(read_samples(records), batch_size):
        images = [sample.image for sample in batch]
        start = time.perf_counter()
        found = detector.detect(images)
        seconds += time.perf_counter() - start
        detections += [relabelled(image, label_ids) for image in found]
        samples += [dataclasses.replace(sample, image=b"") for sample in batch]
        bar.add(len(batch))
    return detections, samples, seconds


def record_label_ids(labels: Sequence[str], record_labels: Sequence[str]) -> np.ndarray:
    """The records' label id of each of a detector's, int `[1 + C]`; 0 for names without objects.

    Raises:
        ValueError: If the names are not the same, but for their order and those without objects.
    """
    if sorted(record_labels) != sorted(n for n in labels if not is_unused(n)):
        raise ValueError(
            f"the records have the labels {tuple(record_labels)}, but the model detects "
            f"{tuple(labels)}: both must have the same"
        )
    ids = dict(zip(record_labels, range(1, 1 + len(record_labels)), strict=True))
    return np.array([0, *(ids.get(name, 0) for name in labels)])


def relabelled(image: dict[str, np.ndarray], label_ids: np.ndarray) -> dict[str, np.ndarray]:
    """Detections of an image with other label ids; those whose id becomes 0 are left out."""
    image = {**image, "classes": label_ids[image["classes"]]}
    kept = image["classes"] > 0
    return {name: values[kept] for name, values in image.items()}


def progress_bar(total: int) -> Any:
    """A Keras progress bar; one line at the end where the output is no terminal."""
    return keras.utils.Progbar(total, verbose=1 if sys.stdout.isatty() else 2, unit_name="image")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in turn; the last may be shorter.

    Raises:
        ValueError: If `size` is not above 0.
    """
    if size < 1:
        raise ValueError(f"batch_size (={size}) must be at least 1")
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
