"""Whether what is asked of the pipeline can be had, and how long padded ground truth must be."""

import os
import socket
import warnings
from typing import Any

import numpy as np

from ssd_keras.data.card import DataCard

_MANY_OBJECTS = 100  # up to here matching costs next to nothing


def padded_length(cards: list[DataCard], max_boxes: int | None) -> int:
    """G; neither expansion nor cropping adds objects, so the cards' largest number is enough."""
    largest = max(card.max_objects for card in cards)
    if max_boxes is None:
        _warn_of_outlier(cards, largest)
        return max(largest, 1)
    if max_boxes < 1:
        raise ValueError(f"max_boxes (={max_boxes}) must be at least 1, or None for {largest}")
    if max_boxes < largest:
        surplus = [
            (images, count - max_boxes)
            for card in cards
            for count, images in enumerate(card.objects_per_image)
            if count > max_boxes
        ]
        warnings.warn(
            f"max_boxes (={max_boxes}) is below the largest number of objects in an image "
            f"({largest}): up to {sum(n * cut for n, cut in surplus)} objects in "
            f"{sum(n for n, _ in surplus)} images will be cut off",
            stacklevel=3,
        )
    return max_boxes


def _warn_of_outlier(cards: list[DataCard], largest: int) -> None:
    """Warns if a thousandth of the images, or a single one, makes every batch much dearer."""
    histograms = [card.objects_per_image for card in cards]
    counts = np.sort(np.concatenate([np.repeat(np.arange(len(h)), h) for h in histograms]))
    rest = counts[-1 - min(max(len(counts) // 1000, 1), len(counts) - 1)]
    if largest > max(_MANY_OBJECTS, 2 * rest):
        warnings.warn(
            f"every image is padded to {largest} objects, though all but a thousandth of them (or "
            f"one) have at most {rest}: matching takes time and memory in proportion; max_boxes "
            f"(={rest}) would cut the others' surplus",
            stacklevel=4,
        )


def check_whole(**values: Any) -> None:
    """Raises ValueError naming the first value that is not an integer."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer):
            raise ValueError(f"{name} (={value!r}) must be a whole number")


def check_service(address: str) -> None:
    """Raises ConnectionError if nothing listens there: tf.data would wait without a word."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"service (={address!r}) does not answer ({error}): it must be the address of a "
            "running tf.data dispatcher, grpc://host:port"
        ) from error


def check_sizes(
    paths: list[str], num_images: int, batch_size: int, shuffle_buffer: int, repeat: bool
) -> None:
    """Raises ValueError for sizes that the records or this machine do not allow."""
    for name, value in (("batch_size", batch_size), ("shuffle_buffer", shuffle_buffer)):
        if value < 1:
            raise ValueError(f"{name} (={value}) must be at least 1")
    if batch_size > num_images and not repeat:
        raise ValueError(
            f"batch_size (={batch_size}) must not exceed the number of images ({num_images}): "
            "take a smaller one, or repeat=True"
        )
    per_record = sum(os.path.getsize(path) for path in paths) / num_images
    needed = per_record * min(shuffle_buffer, num_images)
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    if needed > limit:
        raise ValueError(
            f"shuffle_buffer (={shuffle_buffer}) needs about {needed / 1e9:.1f} GB, but may take "
            f"half of this machine's memory, {limit / 1e9:.1f} GB: at most "
            f"{int(limit / per_record)} records of this size"
        )
