"""Detection on a whole record set, with label ids as the records number them."""

import dataclasses
import os
import time
from collections.abc import Sequence

import numpy as np

from ssd_keras.class_names import is_unused
from ssd_keras.data.card import read_card
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.inference.detector import Detector
from ssd_keras.progress import batched, progress_bar


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
