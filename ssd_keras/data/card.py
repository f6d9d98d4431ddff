"""The data card: what a record set holds, and what was left out of it."""

import collections
import dataclasses
import json
import os
import pathlib

import numpy as np

from ssd_keras import files

CARD_NAME = "card.json"
_NUM_SIZE_BINS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Notes:
    """What a source left out or changed: lists of names, by reason. Filled while it is read."""

    skipped: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    adjusted: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class DataCard:
    """What a record set holds.

    Attributes:
        source: Where the samples came from, in words.
        labels: Class names; `labels[0]` is label id 1.
        category_ids: The source's own id of every label (COCO's have gaps), or None.
        num_images: Number of samples.
        num_objects: Number of boxes in all images.
        num_difficult: How many of them are flagged difficult.
        max_objects: The largest number of boxes in one image.
        objects_per_class: Class name -> number of boxes.
        objects_per_image: `objects_per_image[k]` images have k boxes.
        box_sizes: `box_sizes[k]` boxes have a size (square root of the normalised area)
            from k / 10 to (k + 1) / 10.
        skipped: Reason -> names of the images and boxes that were left out.
        adjusted: Reason -> names of the images and boxes that were stored changed.
        shards: File name -> number of samples, in stored order.
        shard_bytes: File name -> size of the file; empty in cards of old.
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
    """Counts the ground truth of at least one image.

    Args:
        boxes: One float32 `[G, 4]` an image, normalised yxyx.
        label_ids: One int64 `[G]` an image.
        difficult: One bool `[G]` an image.
        labels: See `DataCard`, like all that follow.
        category_ids: See `DataCard`.
        source: See `DataCard`.
        notes: What was skipped and adjusted.
        shards: See `DataCard`.
        shard_bytes: See `DataCard`.
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
    """Writes the card, which declares the record set complete."""
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False)
    with files.atomic(pathlib.Path(directory, CARD_NAME)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_card(directory: str | os.PathLike[str]) -> DataCard:
    """Reads the card of a record set.

    Raises:
        FileNotFoundError: If there is no card (the set is incomplete) or a shard is missing.
        ValueError: If the card is not one, or a shard has another size than when it was written.
    """
    path = pathlib.Path(directory, CARD_NAME)
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no complete record set ({CARD_NAME} is missing): "
            "write it with data/prepare.py, or run that again if it was interrupted"
        )
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        card = DataCard(**fields)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is not a data card ({error}): write the set again with data/prepare.py"
        ) from error
    remedy = "copy the whole directory again, or write it again with data/prepare.py"
    for name in card.shards:
        shard = path.with_name(name)
        if not shard.is_file():
            raise FileNotFoundError(f"{shard} is missing, though {path} lists it: {remedy}")
        size = shard.stat().st_size
        if size != card.shard_bytes.get(name, size):
            raise ValueError(
                f"{shard} has {size} bytes, but {card.shard_bytes[name]} were written: {remedy}"
            )
    return card
