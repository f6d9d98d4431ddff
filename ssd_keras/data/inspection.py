"""Inspects record sets: statistics and probable errors, to check before a long training."""

import dataclasses
import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ssd_keras.boxes import pairwise_iou
from ssd_keras.config import SSDConfig
from ssd_keras.data.box_coverage import IOU_THRESHOLD, Coverage, coverage
from ssd_keras.data.card import DataCard, read_card
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.images import to_rgb

FEW_OBJECTS = 50  # a class with fewer objects is rare
SAME_BOX = 0.9  # IoU of boxes of one class that are almost identical
HEATMAP_CELLS = 16

# Pictures look alike if at most this many of the 64 bits of their signatures differ, and the mean
# difference of their 16 x 16 gray pixels is at most this many levels.
_HASH_BITS = 6
_GRAY_LEVELS = 8.0
_CHUNK = 256  # pictures that are compared with all others at a time
_BITS = np.array([value.bit_count() for value in range(256)], np.uint8)  # bits set in each byte


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The properties of an image, and its objects.

    Attributes:
        records: Index of the record set.
        image_id: Name of the image.
        height: Height in pixels.
        width: Width in pixels.
        boxes: float32 [G, 4], normalized `yxyx`.
        labels: int64 [G], from 1.
        digest: SHA-256 of the file.
        signature: uint64, a difference hash: one bit for each pair of horizontal neighbors of the
            image reduced to 8 x 9 gray pixels.
        gray: uint8 [16, 16], the image reduced to gray pixels.
    """

    records: int
    image_id: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    digest: bytes
    signature: np.uint64
    gray: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Inspection:
    """The results of `inspect_records`.

    Attributes:
        records: Directories of the record sets.
        cards: Their data cards.
        labels: Class names of all sets.
        config: The config that the objects are matched with.
        pictures: All images, set by set.
        coverage: Matches of the objects, in the order of `pictures`.
        copies: For each pair of pictures that look alike: their two indices in `pictures`, and
            whether the files are equal.
        same_boxes: For each pair of almost identical boxes: the index of the picture, and the
            indices of its two boxes.
        centers: int [16, 16], number of object centers by row and column of the image.
    """

    records: tuple[str, ...]
    cards: tuple[DataCard, ...]
    labels: tuple[str, ...]
    config: SSDConfig
    pictures: tuple[Picture, ...]
    coverage: Coverage
    copies: tuple[tuple[int, int, bool], ...]
    same_boxes: tuple[tuple[int, int, int], ...]
    centers: np.ndarray

    @property
    def copies_across(self) -> int:
        """Number of pairs of pictures that look alike in two different sets."""
        return sum(self.pictures[a].records != self.pictures[b].records for a, b, _ in self.copies)

    @property
    def class_counts(self) -> np.ndarray:
        """Int [number of sets, C], number of objects of each class in each set."""
        counts = np.zeros((len(self.records), len(self.labels) + 1), int)
        for picture in self.pictures:
            np.add.at(counts[picture.records], picture.labels, 1)
        return counts[:, 1:]

    @property
    def rare(self) -> list[tuple[str, str, int]]:
        """The classes with few objects: record set, class name and number of objects."""
        return [
            (records, label, int(count))
            for records, row in zip(self.records, self.class_counts, strict=True)
            for label, count in zip(self.labels, row, strict=True)
            if count < FEW_OBJECTS
        ]

    @property
    def owners(self) -> np.ndarray:
        """Int [N], the index of the picture of each object."""
        counts = [len(picture.boxes) for picture in self.pictures]
        return np.repeat(np.arange(len(counts)), counts)

    @property
    def unmatched(self) -> np.ndarray:
        """Bool [N], whether the IoU of an object with every default box is below 0.5."""
        return self.coverage.best_iou < IOU_THRESHOLD


def inspect_records(
    records: Sequence[str | os.PathLike[str]], config: SSDConfig, limit: int | None = None
) -> Inspection:
    """Reads record sets and decodes all images once.

    Args:
        records: Directories of the record sets, such as those for training and for validation.
        config: The input size and tiling of the planned training.
        limit: Largest number of images of each set; None for all.

    Returns:
        The results.

    Raises:
        FileNotFoundError: If a record set is missing or incomplete.
        ValueError: If the sets have different class names, or a record set is damaged.
    """
    directories = tuple(os.fspath(directory) for directory in records)
    cards = tuple(read_card(directory) for directory in directories)
    for directory, card in zip(directories, cards, strict=True):
        if card.labels != cards[0].labels:
            raise ValueError(
                f"record set {directory} has the class names {card.labels}, but {directories[0]} "
                f"has {cards[0].labels}: inspect them separately"
            )
    pictures = tuple(
        _picture(sample, k)
        for k, directory in enumerate(directories)
        for sample in itertools.islice(read_samples(directory), limit)
    )
    centers = np.zeros((HEATMAP_CELLS, HEATMAP_CELLS), int)
    for picture in pictures:
        middle = (picture.boxes[:, :2] + picture.boxes[:, 2:]) / 2
        cells = np.clip((middle * HEATMAP_CELLS).astype(int), 0, HEATMAP_CELLS - 1)
        np.add.at(centers, (cells[:, 0], cells[:, 1]), 1)
    return Inspection(
        records=directories,
        cards=cards,
        labels=tuple(cards[0].labels),
        config=config,
        pictures=pictures,
        coverage=coverage([picture.boxes for picture in pictures], config),
        copies=tuple(_copies(pictures)),
        same_boxes=tuple(_same_boxes(pictures)),
        centers=centers,
    )


def _picture(sample: Sample, records: int) -> Picture:
    image = Image.open(io.BytesIO(sample.image))
    image.draft("RGB", (64, 64))  # a JPEG is decoded at an eighth of its size, if that is enough
    gray = to_rgb(image).convert("L")
    rows = np.asarray(gray.resize((9, 8), Image.Resampling.BOX), int)
    bits = (rows[:, 1:] > rows[:, :-1]).ravel()
    return Picture(
        records=records,
        image_id=sample.image_id,
        height=sample.height,
        width=sample.width,
        boxes=sample.boxes,
        labels=sample.labels,
        digest=hashlib.sha256(sample.image).digest(),
        signature=np.packbits(bits).view(np.uint64)[0],
        gray=np.asarray(gray.resize((16, 16), Image.Resampling.BOX)),
    )


def _copies(pictures: Sequence[Picture]) -> Iterator[tuple[int, int, bool]]:
    """Yields pairs of pictures with similar signatures and similar gray levels."""
    if not pictures:
        return
    signatures = np.array([picture.signature for picture in pictures])
    gray = np.array([picture.gray for picture in pictures], np.int16)
    for start in range(0, len(pictures), _CHUNK):
        differing = signatures[start : start + _CHUNK, None] ^ signatures[None]
        differing = _BITS[differing.view(np.uint8)].reshape(*differing.shape, 8).sum(-1)
        for row, second in np.argwhere(differing <= _HASH_BITS).tolist():
            first = start + row
            if first < second and np.abs(gray[first] - gray[second]).mean() <= _GRAY_LEVELS:
                yield first, second, pictures[first].digest == pictures[second].digest


def _same_boxes(pictures: Sequence[Picture]) -> Iterator[tuple[int, int, int]]:
    for k, picture in enumerate(pictures):
        if len(picture.boxes) < 2:
            continue
        iou = pairwise_iou(picture.boxes, picture.boxes).numpy()
        alike = (iou >= SAME_BOX) & (picture.labels[:, None] == picture.labels[None])
        yield from ((k, a, b) for a, b in np.argwhere(np.triu(alike, 1)).tolist())


def inspection_text(found: Inspection) -> str:
    """Formats the results of an inspection as text."""
    lines = []
    for k, (records, card) in enumerate(zip(found.records, found.cards, strict=True)):
        own = [picture for picture in found.pictures if picture.records == k]
        objects = [len(picture.boxes) for picture in own]
        sizes = [(picture.width, picture.height) for picture in own]
        lines.append(
            f"{records}: {len(own)} images, {sum(objects)} objects "
            f"({card.num_difficult} difficult), {sum(n == 0 for n in objects)} images without "
            "objects"
        )
        if own:
            widths, heights = zip(*sizes, strict=True)
            lines.append(
                f"  images {min(widths)} to {max(widths)} pixels wide, {min(heights)} to "
                f"{max(heights)} high, {len(set(sizes))} different sizes; "
                f"objects in an image: median {np.median(objects):.0f}, at most {max(objects)}"
            )
    lines += [
        f"{label:>24} {' '.join(map(str, column))}"
        for label, column in zip(found.labels, found.class_counts.T, strict=True)
    ]
    height, width = found.config.input_size
    small = int(found.unmatched.sum())
    total = max(len(found.unmatched), 1)
    lines += [
        f"{small} objects ({100 * small / total:.1f}%) have no default box with an IoU of 0.5 at "
        f"an input of {width} x {height} pixels",
        f"{len(found.copies)} pairs of pictures look alike, {found.copies_across} of them in two "
        "sets",
        f"{len(found.same_boxes)} pairs of boxes of one class are almost identical",
        f"{len(found.rare)} classes have fewer than {FEW_OBJECTS} objects in a set",
    ]
    for log in ("skipped", "adjusted"):
        for card in found.cards:
            for reason, names in getattr(card, log).items():
                lines.append(f"{log}: {len(names)} x {reason}")
    return "\n".join(lines)
