"""How fast a detector is, from encoded images to detections."""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from ssd_keras.inference.detector import Detector


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """The time of one call with a batch of images.

    Attributes:
        batch_size: Images in the batch.
        median: Median milliseconds for one image.
        p90: 90th percentile of the milliseconds for one image.
    """

    batch_size: int
    median: float
    p90: float

    def __str__(self) -> str:
        return (
            f"batch {self.batch_size:3d}  median {self.median:8.1f} ms/image  "
            f"90 % below {self.p90:8.1f} ms/image  {1e3 / self.median:8.1f} images/s"
        )


def time_detector(
    detector: Detector, images: Sequence[bytes], batch_size: int, repeats: int = 20
) -> Timing:
    """Measures a detector after one call that builds and warms up the graph.

    Args:
        detector: From `load_detector`.
        images: Encoded images; they are repeated to fill the batch.
        batch_size: Images in a batch.
        repeats: Number of measured calls.

    Raises:
        ValueError: If there are no images, or `batch_size` or `repeats` is below 1.
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
