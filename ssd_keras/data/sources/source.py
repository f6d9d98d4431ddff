"""What every source of samples shares: class names, checked file names, cleaned ground truth.

The sources themselves are `voc_source`, `coco_source`, `yolo_source`, `tfds_source` and `shapes`.
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

_CLIPPED = 1e-4  # of the image's side; less is rounding

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A data set that is ready to be read.

    Attributes:
        description: What it is, in words, for the data card.
        labels: Class names; the first is label id 1.
        num_images: Images it lists; those that cannot be used are still among them.
        samples: To be read once.
        notes: Filled while `samples` is read.
        category_ids: The data set's own id of every label, or None.
    """

    description: str
    labels: tuple[str, ...]
    num_images: int
    samples: Iterator[Sample]
    notes: Notes
    category_ids: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """An annotated object: its box as found (yxyx, any unit) and its label id."""

    box: tuple[float, float, float, float]
    label: int
    difficult: bool = False


def mix(items: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """Returns the items by the SHA-256 of their names: the same order always, but no pattern in it.

    Lists come by class, by year or by date, and training mixes only as much as its buffer holds;
    the original shuffles them when it makes its databases, too (data/VOC0712/create_list.sh).
    """
    return sorted(items, key=lambda item: hashlib.sha256(name(item).encode()).digest())


def annotated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """(height, width) if an annotation gives them; some tools write 0 or nothing instead."""
    try:
        sides = float(height), float(width)
    except (TypeError, ValueError):
        return None
    return (int(sides[0]), int(sides[1])) if all(1 <= s < math.inf for s in sides) else None


def path_inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns `folder / name`.

    Raises:
        ValueError: If the name leads out of the folder.
    """
    relative = pathlib.PurePath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"the file name {name!r} points outside {folder}, its data set")
    return folder / relative


def require_files(paths: Iterable[pathlib.Path]) -> None:
    """Raises FileNotFoundError naming the first of the files that are missing."""
    paths = list(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing ({len(missing)} of {len(paths)} files of its kind are): "
            "extract the data set's archives again, completely, or correct the list that names it"
        )


def label_id(name: str, labels: dict[str, int], where: object) -> int:
    """Returns the id of a class name.

    Raises:
        ValueError: If the class is not declared.
    """
    if name not in labels:
        raise ValueError(
            f"{where} has an object of class {name!r}, which is not among the "
            f"{len(labels)} class names: add it to the label file, or correct the annotation"
        )
    return labels[name]


def warn_of_other_size(split: str, num_images: int, published_sizes: dict[str, int]) -> None:
    """Warns if a published split does not list as many images as it is known to have."""
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
    """Makes a sample whose boxes are valid: inside the image and of positive area.

    Boxes are clipped to the image. Boxes without four numbers, without area (or reversed) or
    outside the image are left out; the notes name them all, objects counted from 1.

    Args:
        image: What they are on.
        image_id: Its name.
        objects: The ground truth as annotated.
        notes: Takes what is skipped or changed.
        size: (height, width) of the image in the boxes' unit: (1, 1) if they are normalised. By
            default the image's own, in pixels.
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
    moved = keep & (np.abs(np.where(keep[:, None], clipped - boxes, 0)) > _CLIPPED).any(axis=1)
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
