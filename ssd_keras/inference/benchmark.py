"""Measures the speed of a detector and of its stages."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """The measured time per image for one batch size.

    Attributes:
        batch_size: Images in a batch.
        median: Median time per image, in milliseconds.
        p90: 90th percentile of the time per image, in milliseconds.
        p99: 99th percentile of the time per image, in milliseconds.
        stage: Name of the stage.
    """

    batch_size: int
    median: float
    p90: float
    p99: float
    stage: str = "end to end"

    def __str__(self) -> str:
        return (
            f"batch {self.batch_size:3d}  {self.stage:23}  median {self.median:8.1f} ms/image  "
            f"p90 {self.p90:8.1f}  p99 {self.p99:8.1f}  {1e3 / self.median:8.1f} images/s"
        )


def fill_batch(images: Sequence[bytes], batch_size: int) -> list[bytes]:
    """Creates a batch, with the images repeated in turn until it is full.

    Args:
        images: Encoded images.
        batch_size: Images in the batch.

    Returns:
        `batch_size` encoded images.

    Raises:
        ValueError: If `images` is empty or `batch_size` is below 1.
    """
    if not images or batch_size < 1:
        raise ValueError(
            f"images ({len(images)}) and batch_size (={batch_size}) must be at least 1"
        )
    return [images[k % len(images)] for k in range(batch_size)]


def time_stages(
    stages: dict[str, Callable[[], Any]], batch_size: int, repeats: int = 20
) -> list[Timing]:
    """Times functions in turn, so that other work on the machine affects all of them.

    Each function is called once before the measurement.

    Args:
        stages: Name -> function that processes one batch.
        batch_size: Images in the batch.
        repeats: Number of timed calls of each function.

    Returns:
        One timing per function, in the order of `stages`.

    Raises:
        ValueError: If `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats (={repeats}) must be at least 1")
    for function in stages.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(repeats):
        for name, function in stages.items():
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) * 1e3 / batch_size)
    timings = []
    for name, values in times.items():
        median, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        timings.append(Timing(batch_size, median, p90, p99, name))
    return timings
