"""Detects on a whole record set, and converts class ids to the label ids of the records."""

import dataclasses
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from ssd_keras.class_names import is_unused
from ssd_keras.data.card import read_card
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.detections import Detections
from ssd_keras.inference.detector import Detector
from ssd_keras.progress import batched, progress_bar


@dataclasses.dataclass(slots=True)
class Stopwatch:
    """The time that a detector took, from encoded images to detections.

    Attributes:
        seconds: The time so far.
        images: The number of images so far.
    """

    seconds: float = 0.0
    images: int = 0


def stream_records(
    detector: Detector,
    records: str | os.PathLike[str],
    batch_size: int = 8,
    stopwatch: Stopwatch | None = None,
) -> Iterator[tuple[Detections, Sample]]:
    """Detects on a record set, one batch after another, and shows a progress bar.

    Args:
        detector: The detector to run. It must have the same labels as the records, in any order.
            Labels of ids that COCO does not use ("N/A 12") are ignored.
        records: Folder of the record set.
        batch_size: Images per batch.
        stopwatch: Receives the time of the detector.

    Yields:
        The detections of each image, in stored order, and its sample without the encoded image.
        The classes are label ids of the records.

    Raises:
        FileNotFoundError: If `records` is not a complete record set.
        ValueError: If the labels differ, an image cannot be decoded, or `batch_size` is below 1.
    """
    card = read_card(records)
    label_ids = record_label_ids(detector.labels, card.labels)
    stopwatch = Stopwatch() if stopwatch is None else stopwatch
    bar = progress_bar(card.num_images)
    for batch in batched(read_samples(records), batch_size):
        images = [sample.image for sample in batch]
        start = time.perf_counter()
        found = detector.detect(images)
        stopwatch.seconds += time.perf_counter() - start
        stopwatch.images += len(batch)
        for image, sample in zip(found, batch, strict=True):
            yield relabeled(image, label_ids), dataclasses.replace(sample, image=b"")
        bar.add(len(batch))


def detect_records(
    detector: Detector, records: str | os.PathLike[str], batch_size: int = 8
) -> tuple[list[Detections], list[Sample], float]:
    """Detects on a whole record set; see `stream_records`.

    Args:
        detector: The detector to run.
        records: Folder of the record set.
        batch_size: Images per batch.

    Returns:
        A tuple of three:

        - The detections of each image, in stored order. Their classes are label ids of the records.
        - The samples in the same order, without the encoded images.
        - The time from encoded images to detections, in seconds.

    Raises:
        FileNotFoundError: If `records` is not a complete record set.
        ValueError: If the labels differ, an image cannot be decoded, or `batch_size` is below 1.
    """
    stopwatch = Stopwatch()
    pairs = list(stream_records(detector, records, batch_size, stopwatch))
    return [found for found, _ in pairs], [sample for _, sample in pairs], stopwatch.seconds


def record_label_ids(labels: Sequence[str], record_labels: Sequence[str]) -> np.ndarray:
    """Maps the class ids of a detector to the label ids of a record set, by class name.

    Args:
        labels: Class names of the detector; `labels[0]` is class 1.
        record_labels: Class names of the records; `record_labels[0]` is label id 1.

    Returns:
        int64 [1 + C]: the label id for each class id. It is 0 for the background and for names of
        unused ids; see `is_unused`.

    Raises:
        ValueError: If the names differ, apart from their order and unused ids.
    """
    if sorted(record_labels) != sorted(n for n in labels if not is_unused(n)):
        raise ValueError(
            f"the records have the labels {tuple(record_labels)}, but the model detects "
            f"{tuple(labels)}: both must have the same names"
        )
    ids = dict(zip(record_labels, range(1, 1 + len(record_labels)), strict=True))
    return np.array([0, *(ids.get(name, 0) for name in labels)])


def relabeled(detections: Detections, label_ids: np.ndarray) -> Detections:
    """Replaces the class ids of the detections of one image.

    Args:
        detections: The detections of one image.
        label_ids: int64 [1 + C], from `record_label_ids`.

    Returns:
        The detections with the new ids, without those whose new id is 0.
    """
    detections = {**detections, "classes": label_ids[detections["classes"]]}
    kept = detections["classes"] > 0
    return {name: values[kept] for name, values in detections.items()}
