"""Progress bars and batches for loops over many images."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import keras

T = TypeVar("T")


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
