"""Checks of the input pipeline's arguments, and the padded length of the ground truth."""

import os
import socket
import warnings

import numpy as np

from ssd_keras.data.card import DataCard

_MANY_OBJECTS = 100  # up to this number, the cost of matching is negligible


def padded_length(cards: list[DataCard], max_boxes: int | None) -> int:
    """Returns G, the number of ground truth rows that each image is padded to.

    The largest number of objects in the data cards is enough, since augmentation adds none.

    Args:
        cards: Data cards of the record sets.
        max_boxes: G as given by the user, or None for the largest number.

    Returns:
        G, at least 1.

    Raises:
        ValueError: If `max_boxes` is below 1.
    """
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
            f"{sum(n for n, _ in surplus)} images will be left out",
            stacklevel=3,
        )
    return max_boxes


def _warn_of_outlier(cards: list[DataCard], largest: int) -> None:
    """Warns if very few images have so many objects that the padding of all others is large.

    Very few means one image in a thousand, or a single image.
    """
    histograms = [card.objects_per_image for card in cards]
    counts = np.sort(np.concatenate([np.repeat(np.arange(len(h)), h) for h in histograms]))
    few = min(max(len(counts) // 1000, 1), len(counts) - 1)
    rest = counts[-1 - few]
    if largest > max(_MANY_OBJECTS, 2 * rest):
        warnings.warn(
            f"every image is padded to {largest} objects, but all except {few} of {len(counts)} "
            f"images have at most {rest}: the time and memory of matching grow with the padding. "
            f"max_boxes={rest} would leave out the surplus objects",
            stacklevel=4,
        )


def check_integers(**values: object) -> None:
    """Raises a `ValueError` that names the first value that is not an integer."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer):
            raise ValueError(f"{name} (={value!r}) must be an integer")


def check_service(address: str) -> None:
    """Raises a `ConnectionError` if nothing listens at an address.

    `tf.data` itself would wait without a message.

    Args:
        address: Address of a `tf.data` service dispatcher, "grpc://host:port".
    """
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
    """Raises a `ValueError` if the batch or the shuffle buffer is too small or too large.

    Args:
        paths: Paths of all shards.
        num_images: Number of images in the shards.
        batch_size: Number of images in a batch. Without `repeat`, at most `num_images`.
        shuffle_buffer: Number of records held for shuffling. They may take at most half of the
            machine's memory.
        repeat: Whether the dataset repeats.
    """
    for name, value in (("batch_size", batch_size), ("shuffle_buffer", shuffle_buffer)):
        if value < 1:
            raise ValueError(f"{name} (={value}) must be at least 1")
    if batch_size > num_images and not repeat:
        raise ValueError(
            f"batch_size (={batch_size}) must not exceed the number of images ({num_images}): "
            "use a smaller one, or repeat=True"
        )
    per_record = sum(os.path.getsize(path) for path in paths) / num_images
    needed = per_record * min(shuffle_buffer, num_images)
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    if needed > limit:
        raise ValueError(
            f"shuffle_buffer (={shuffle_buffer}) needs about {needed / 1e9:.1f} GB, but must not "
            f"take more than half of this machine's memory ({limit / 1e9:.1f} GB): use at most "
            f"{int(limit / per_record)} records"
        )
