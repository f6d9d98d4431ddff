"""Shared code of the sources: checks of files, class names and boxes.

A source reads one dataset format. The sources are the modules `voc`, `coco`, `yolo`, `csv_table`,
`cvat`, `label_studio`, `tfds` and `shapes` in this package.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from absl import logging

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import EncodedImage
from ssd_keras.data.records import Sample
from ssd_keras.files import readable

_MIN_CLIPPED = 1e-4  # fraction of the image's side; a smaller change is rounding

T = TypeVar("T")
Keep = Callable[[str], bool]  # from the id of an image


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A dataset that is ready to be read.

    Attributes:
        description: Description of the dataset, for the data card.
        labels: Class names; the first has label id 1.
        num_images: Number of images in the dataset, including images that will be skipped.
        read: Function that yields the samples of the images whose id it is told to keep. It adds
            the names of skipped and changed items to the notes that it gets.
        notes: Names of skipped and changed items of the whole dataset. `samples` adds to them.
        category_ids: The id of each class in the dataset, or None.
    """

    description: str
    labels: tuple[str, ...]
    num_images: int
    read: Callable[[Keep, Notes], Iterator[Sample]]
    notes: Notes
    category_ids: tuple[int, ...] | None = None

    @property
    def samples(self) -> Iterator[Sample]:
        """All samples. Read them once, since each reading adds to the notes."""
        return self.read(lambda image_id: True, self.notes)


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """An annotated object.

    Attributes:
        box: (ymin, xmin, ymax, xmax) as annotated, in pixels or normalized.
        label: Label id, from 1.
        difficult: Whether the object is flagged as difficult.
    """

    box: tuple[float, float, float, float]
    label: int
    difficult: bool = False


def shuffle_by_name(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Returns the items in an order that looks random but is always the same.

    Datasets are often listed by class or by date, and training shuffles only within its buffer.

    Args:
        items: The items.
        name: A function that returns the name of an item.

    Returns:
        The items, sorted by the SHA-256 of their names.

    Source:
        data/VOC0712/create_list.sh, which also shuffles the list of images.
    """
    return sorted(items, key=lambda item: hashlib.sha256(readable(name(item)).encode()).digest())


def annotated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Converts the image size in an annotation to integers.

    Args:
        height: Value of the annotation; a number, a string or None.
        width: Value of the annotation; a number, a string or None.

    Returns:
        (height, width), or None if one of them is not a number of at least 1. Some tools write 0.
    """
    try:
        sides = float(height), float(width)
    except (TypeError, ValueError):
        return None
    return (int(sides[0]), int(sides[1])) if all(1 <= s < math.inf for s in sides) else None


def path_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Joins a folder and a file name that comes from a dataset.

    Args:
        folder: The folder.
        name: Path relative to the folder.

    Returns:
        `folder / name`.

    Raises:
        ValueError: If the name is an absolute path or contains "..".
    """
    relative = pathlib.PurePath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"the file name {name!r} points outside {folder}, the dataset's folder")
    return folder / relative


def require_files(paths: Iterable[pathlib.Path]) -> None:
    """Raises a `FileNotFoundError` that names the first missing file."""
    paths = list(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing ({len(missing)} of {len(paths)} such files are missing): "
            "extract the archives of the dataset again, or correct the list that names the file"
        )


def label_id(name: str, labels: dict[str, int], where: object) -> int:
    """Returns the label id of a class name.

    Args:
        name: Class name of an object.
        labels: Class name -> label id.
        where: Place of the object; the message starts with it.

    Returns:
        The label id.

    Raises:
        ValueError: If `labels` does not have the name.
    """
    if name not in labels:
        raise ValueError(
            f"{where} has an object of class {name!r}, which is not among the "
            f"{len(labels)} class names: add it to the label file, or correct the annotation"
        )
    return labels[name]


def warn_if_size_differs(split: str, num_images: int, published_sizes: dict[str, int]) -> None:
    """Logs a warning if the number of images in a split differs from the published number.

    Args:
        split: Name of the split.
        num_images: Number of images that the split lists.
        published_sizes: Name of a split -> published number of images. Other splits are not
            checked.
    """
    published = published_sizes.get(split, num_images)
    if num_images != published:
        logging.warning(
            "%s lists %d images; the published split has %d", split, num_images, published
        )


def make_sample(
    image: EncodedImage,
    image_id: str,
    objects: list[Object],
    notes: Notes,
    *,
    size: tuple[int, int] | None = None,
) -> Sample:
    """Creates a sample with valid boxes only: inside the image and with a positive area.

    Boxes are clipped to the image. Boxes that are not four finite numbers, have no area, are
    reversed or lie outside the image are left out. The notes name all these objects by their
    number, from 1.

    Args:
        image: The image.
        image_id: Name of the image.
        objects: The annotated objects.
        notes: Receives the names of skipped and changed objects.
        size: (height, width) of the image in the unit of the boxes, such as (1, 1) for normalized
            boxes. None means boxes in pixels of `image`.

    Returns:
        The sample. Its boxes are normalized yxyx.
    """
    height, width = size or (image.height, image.width)
    boxes: np.ndarray = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    boxes /= (height, width, height, width)
    clipped = np.clip(boxes, 0, 1).astype(np.float32)
    finite = np.isfinite(boxes).all(axis=1)
    has_area = finite & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    keep = has_area & (clipped[:, 2:] > clipped[:, :2]).all(axis=1)

    def note(log: dict[str, list[str]], reason: str, which: np.ndarray) -> None:
        for index in np.flatnonzero(which):
            log[reason].append(f"{image_id} object {index + 1}")

    note(notes.skipped, "box without four numbers", ~finite)
    note(notes.skipped, "box without area", finite & ~has_area)
    note(notes.skipped, "box outside the image", has_area & ~keep)
    moved = keep & (np.abs(np.where(keep[:, None], clipped - boxes, 0)) > _MIN_CLIPPED).any(axis=1)
    note(notes.adjusted, "box clipped to the image", moved)
    return Sample(
        image=image.data,
        image_id=image_id,
        height=image.height,
        width=image.width,
        boxes=clipped[keep],
        labels=np.array([o.label for o in objects], np.int64)[keep],
        difficult=np.array([o.difficult for o in objects], bool)[keep],
    )
