"""The data card: the counts and files of a record set, and the items that were left out."""

import collections
import dataclasses
import json
import os
import pathlib
import typing

import numpy as np

from ssd_keras import files

CARD_NAME = "card.json"
_NUM_SIZE_BINS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Notes:
    """Names of skipped and changed items, by reason. They are added while a source is read.

    Attributes:
        skipped: Reason -> names of the images and objects that were left out.
        adjusted: Reason -> names of the images and objects that were changed.
    """

    skipped: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    adjusted: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class DataCard:
    """The contents of a record set.

    Attributes:
        source: Description of the dataset that the samples come from.
        labels: Class names; `labels[0]` has label id 1.
        category_ids: The id of each class in the source (COCO's ids have gaps), or None.
        num_images: Number of images.
        num_objects: Number of objects in all images.
        num_difficult: Number of objects that are flagged as difficult.
        max_objects: Largest number of objects in one image.
        objects_per_class: Class name -> number of objects.
        objects_per_image: `objects_per_image[k]` is the number of images with k objects.
        box_sizes: `box_sizes[k]` is the number of boxes with a size from k / 10 to (k + 1) / 10.
            The size of a box is the square root of its normalized area.
        skipped: Reason -> names of the images and objects that were left out.
        adjusted: Reason -> names of the images and objects that were changed.
        shards: File name -> number of images, in stored order.
        shard_bytes: File name -> file size in bytes. Empty if the card was written before this
            field existed.
    """

    source: str
    labels: tuple[str, ...]
    category_ids: tuple[int, ...] | None
    num_images: int
    num_objects: int
    num_difficult: int
    max_objects: int
    objects_per_class: dict[str, int]
    objects_per_image: tuple[int, ...]
    box_sizes: tuple[int, ...]
    skipped: dict[str, list[str]]
    adjusted: dict[str, list[str]]
    shards: dict[str, int]
    shard_bytes: dict[str, int] = dataclasses.field(default_factory=dict)


def make_card(
    *,
    boxes: list[np.ndarray],
    label_ids: list[np.ndarray],
    difficult: list[np.ndarray],
    labels: tuple[str, ...],
    category_ids: tuple[int, ...] | None,
    source: str,
    notes: Notes,
    shards: dict[str, int],
    shard_bytes: dict[str, int],
) -> DataCard:
    """Computes the counts of a data card.

    Args:
        boxes: For each image (at least one) a float32 array `[G, 4]`, normalized yxyx.
        label_ids: For each image an int64 array `[G]`, from 1.
        difficult: For each image a bool array `[G]`.
        labels: See `DataCard`.
        category_ids: See `DataCard`.
        source: See `DataCard`.
        notes: The skipped and adjusted items.
        shards: See `DataCard`.
        shard_bytes: See `DataCard`.

    Returns:
        The card.
    """
    objects_per_image = np.bincount([len(ids) for ids in label_ids])
    objects_per_class = np.bincount(np.concatenate(label_ids), minlength=len(labels) + 1)[1:]
    corners = np.concatenate(boxes)
    sizes = np.sqrt(np.prod(corners[:, 2:] - corners[:, :2], axis=-1))
    bins = np.minimum((sizes * _NUM_SIZE_BINS).astype(int), _NUM_SIZE_BINS - 1)
    return DataCard(
        source=source,
        labels=labels,
        category_ids=category_ids,
        num_images=len(boxes),
        num_objects=len(corners),
        num_difficult=int(sum(flags.sum() for flags in difficult)),
        max_objects=len(objects_per_image) - 1,
        objects_per_class=dict(zip(labels, objects_per_class.tolist(), strict=True)),
        objects_per_image=tuple(objects_per_image.tolist()),
        box_sizes=tuple(np.bincount(bins, minlength=_NUM_SIZE_BINS).tolist()),
        skipped=dict(notes.skipped),
        adjusted=dict(notes.adjusted),
        shards=shards,
        shard_bytes=shard_bytes,
    )


def write_card(card: DataCard, directory: str | os.PathLike[str]) -> None:
    """Writes a card as `card.json`. A record set without this file counts as incomplete.

    Args:
        card: The card.
        directory: Directory of the record set.

    Raises:
        OSError: If the file cannot be written.
    """
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False)
    with files.atomic(pathlib.Path(directory, CARD_NAME)) as temporary:
        # A file name that is not UTF-8 becomes an escape, which is also valid in JSON.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_card(directory: str | os.PathLike[str]) -> DataCard:
    """Reads the card of a record set, and checks that all its shards are there.

    Args:
        directory: Directory of the record set.

    Returns:
        The card.

    Raises:
        FileNotFoundError: If the card is missing (the set is incomplete) or a shard is missing.
        ValueError: If the file is not a data card, or the size of a shard differs from the card.
    """
    path = pathlib.Path(directory, CARD_NAME)
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no complete record set ({CARD_NAME} is missing): "
            "write one with `ssd-keras prepare`; if that was interrupted, run it again"
        )
    remedy = "write the set again with `ssd-keras prepare`"
    with files.reading(path, remedy, fault="is not a data card"):
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        card = DataCard(**fields)
        files.check_types(dataclasses.asdict(card), typing.get_type_hints(DataCard))
        if not card.shards or not 0 < card.num_images == sum(card.shards.values()):
            raise ValueError(f"num_images (={card.num_images}) is not the sum over the shards")
        if sum(card.objects_per_image) != card.num_images:
            raise ValueError("the sum of objects_per_image is not num_images")
        if len(card.objects_per_image) != card.max_objects + 1:
            raise ValueError("objects_per_image must have max_objects + 1 values")
        if any(pathlib.PurePath(name).name != name for name in card.shards):
            raise ValueError("a shard lies in another folder")
    remedy = "copy the whole directory again, or write it again with `ssd-keras prepare`"
    for name in card.shards:
        shard = path.with_name(name)
        if not shard.is_file():
            raise FileNotFoundError(f"{shard} is missing, but {path} lists it: {remedy}")
        size = shard.stat().st_size
        if size != card.shard_bytes.get(name, size):
            raise ValueError(
                f"{shard} has {size} bytes, but {card.shard_bytes[name]} were written: {remedy}"
            )
    return card
