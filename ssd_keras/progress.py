"""A progress bar and batches for loops over many images."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

import keras

T = TypeVar("T")


def progress_bar(total: int) -> keras.utils.Progbar:
    """Returns a Keras progress bar for `total` images.

    If stdout is not a terminal, the bar prints one line at the end.
    """
    return keras.utils.Progbar(total, verbose=1 if sys.stdout.isatty() else 2, unit_name="image")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` consecutive items; the last list may be shorter.

    Raises:
        ValueError: If `size` is below 1. The message calls it batch_size.
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
