"""Measures the speed of a detector, from encoded images to detections."""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from ssd_keras.inference.detector import Detector


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """The measured time per image for one batch size.

    Attributes:
        batch_size: Images in a batch.
        median: Median time per image, in milliseconds.
        p90: 90th percentile of the time per image, in milliseconds.
    """

    batch_size: int
    median: float
    p90: float

    def __str__(self) -> str:
        return (
            f"batch {self.batch_size:3d}  median {self.median:8.1f} ms/image  "
            f"p90 {self.p90:8.1f} ms/image  {1e3 / self.median:8.1f} images/s"
        )


def time_detector(
    detector: Detector, images: Sequence[bytes], batch_size: int, repeats: int = 20
) -> Timing:
    """Times a detector. A first call, which is not timed, builds the graph.

    Args:
        detector: From `load_detector`.
        images: Encoded images, repeated in turn to fill the batch.
        batch_size: Images in a batch.
        repeats: Number of timed calls.

    Raises:
        ValueError: If `images` is empty, `batch_size` or `repeats` is below 1, or an image cannot
            be decoded.
    """
    if not images or batch_size < 1 or repeats < 1:
        raise ValueError(
            f"images ({len(images)}), batch_size (={batch_size}) and repeats (={repeats}) must be "
            "at least 1"
        )
    batch = [images[k % len(images)] for k in range(batch_size)]
    detector.detect(batch)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        detector.detect(batch)
        times.append((time.perf_counter() - start) * 1e3 / batch_size)
    return Timing(batch_size, float(np.median(times)), float(np.percentile(times, 90)))
