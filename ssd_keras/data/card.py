"""The data card: the counts and files of a record set, and the items that were left out."""

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import typing
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ssd_keras import files
from ssd_keras.files import readable

CARD_NAME = "card.json"
_NUM_SIZE_BINS = 10
_REMEDY = "write the set again with `ssd-keras prepare`"


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
        boxes: For each image a float32 array `[G, 4]`, normalized yxyx.
        label_ids: For each image an int64 array `[G]`, from 1.
        difficult: For each image a bool array `[G]`.
        labels: See `DataCard`.
        category_ids: See `DataCard`.
        source: See `DataCard`.
        notes: The skipped and adjusted items. The card sorts them, so that it does not depend on
            the order of the images.
        shards: See `DataCard`.
        shard_bytes: See `DataCard`.

    Returns:
        The card.
    """
    objects_per_image = np.bincount(np.array([len(ids) for ids in label_ids], int))
    all_ids = np.concatenate([np.zeros(0, int), *label_ids])
    objects_per_class = np.bincount(all_ids, minlength=len(labels) + 1)[1:]
    corners = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
    sizes = np.sqrt(np.prod(corners[:, 2:] - corners[:, :2], axis=-1))
    bins = np.minimum((sizes * _NUM_SIZE_BINS).astype(int), _NUM_SIZE_BINS - 1)
    return DataCard(
        source=source,
        labels=labels,
        category_ids=category_ids,
        num_images=len(boxes),
        num_objects=len(corners),
        num_difficult=int(sum(flags.sum() for flags in difficult)),
        max_objects=max(len(objects_per_image) - 1, 0),
        objects_per_class=dict(zip(labels, objects_per_class.tolist(), strict=True)),
        objects_per_image=tuple(objects_per_image.tolist()),
        box_sizes=tuple(np.bincount(bins, minlength=_NUM_SIZE_BINS).tolist()),
        skipped=_sorted_names([notes.skipped]),
        adjusted=_sorted_names([notes.adjusted]),
        shards=shards,
        shard_bytes=shard_bytes,
    )


def merge_cards(cards: Sequence[DataCard]) -> DataCard:
    """Adds the cards of parts of a record set, which must have equal sources, labels and ids."""
    first = cards[0]

    def total(lists: Iterable[Sequence[int]]) -> tuple[int, ...]:
        return tuple(sum(column) for column in itertools.zip_longest(*lists, fillvalue=0))

    return DataCard(
        source=first.source,
        labels=first.labels,
        category_ids=first.category_ids,
        num_images=sum(card.num_images for card in cards),
        num_objects=sum(card.num_objects for card in cards),
        num_difficult=sum(card.num_difficult for card in cards),
        max_objects=max(card.max_objects for card in cards),
        objects_per_class={
            name: sum(card.objects_per_class[name] for card in cards) for name in first.labels
        },
        objects_per_image=total(card.objects_per_image for card in cards),
        box_sizes=total(card.box_sizes for card in cards),
        skipped=_sorted_names([card.skipped for card in cards]),
        adjusted=_sorted_names([card.adjusted for card in cards]),
        shards={name: count for card in cards for name, count in card.shards.items()},
        shard_bytes={name: size for card in cards for name, size in card.shard_bytes.items()},
    )


def _sorted_names(logs: Sequence[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """Joins logs of names by reason, with reasons and names in alphabetical order."""
    reasons = sorted({reason for log in logs for reason in log})
    return {
        reason: sorted(readable(name) for log in logs for name in log.get(reason, ()))
        for reason in reasons
    }


def write_card(card: DataCard, directory: str | os.PathLike[str], name: str = CARD_NAME) -> None:
    """Writes a card as `card.json`. A record set without this file counts as incomplete.

    Args:
        card: The card.
        directory: Directory of the record set.
        name: Name of the file.

    Raises:
        OSError: If the file cannot be written.
    """
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False)
    with files.atomic(pathlib.Path(directory, name)) as temporary:
        # A file name that is not UTF-8 becomes an escape, which is also valid in JSON.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def parse_card(path: pathlib.Path) -> DataCard:
    """Reads the card of a record set or of a part of one. It does not check the shards.

    Raises:
        ValueError: If the file is not a data card.
    """
    with files.reading(path, _REMEDY, fault="is not a data card"):
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        card = DataCard(**fields)
        files.check_types(dataclasses.asdict(card), typing.get_type_hints(DataCard))
        if not card.shards or card.num_images != sum(card.shards.values()):
            raise ValueError(f"num_images (={card.num_images}) is not the sum over the shards")
        if sum(card.objects_per_image) != card.num_images:
            raise ValueError("the sum of objects_per_image is not num_images")
        if max(len(card.objects_per_image) - 1, 0) != card.max_objects:
            raise ValueError("objects_per_image must have max_objects + 1 values")
        if any(pathlib.PurePath(name).name != name for name in card.shards):
            raise ValueError("a shard lies in another folder")
    return card


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
            "write one with `ssd-keras prepare`; if that was interrupted, run it again; after "
            "`prepare --shard`, run `prepare --merge`"
        )
    card = parse_card(path)
    if not card.num_images:
        raise ValueError(f"{path} is not a data card (num_images is 0): {_REMEDY}")
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
