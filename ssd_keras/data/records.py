"""The one on-disk schema of a sample, and sets of samples.

A record set is one directory: shards of `tf.train.Example` (the keys of the TensorFlow Object
Detection API) and a data card. The card is written last, so a directory without it is incomplete.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from ssd_keras.data.card import CARD_NAME, DataCard, Notes, make_card, read_card, write_card

__all__ = [
    "DataCard",
    "Notes",
    "Sample",
    "parse_example",
    "read_card",
    "read_samples",
    "serialize",
    "shard_paths",
    "write_records",
]

_SHARD_PATTERN = re.compile(r"records-\d{5}-of-\d{5}\.tfrecord")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and its ground truth.

    Attributes:
        image: The encoded file (JPEG or PNG), as found.
        image_id: Unique in its record set.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        boxes: float32 `[G, 4]`, yxyx in [0, 1].
        labels: int64 `[G]`, from 1.
        difficult: bool `[G]`, objects that VOC's evaluation ignores.
    """

    image: bytes
    image_id: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


# --- one sample ---


def serialize(sample: Sample) -> bytes:
    """Returns the `tf.train.Example` of a sample as a string."""
    is_png = sample.image.startswith(b"\x89PNG")
    ymin, xmin, ymax, xmax = np.asarray(sample.boxes, np.float32).reshape(-1, 4).T
    features = {
        "image/encoded": _bytes(sample.image),
        "image/format": _bytes(b"png" if is_png else b"jpeg"),
        "image/height": _ints([sample.height]),
        "image/width": _ints([sample.width]),
        "image/source_id": _bytes(sample.image_id.encode()),
        "image/object/bbox/ymin": _floats(ymin),
        "image/object/bbox/xmin": _floats(xmin),
        "image/object/bbox/ymax": _floats(ymax),
        "image/object/bbox/xmax": _floats(xmax),
        "image/object/class/label": _ints(sample.labels),
        "image/object/difficult": _ints(sample.difficult),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Reads one record, as a graph op.

    Args:
        serialized: string scalar, a `tf.train.Example` written by `write_records`.

    Returns:
        `image` (string scalar, still encoded), `boxes` (float32 `[G, 4]`, normalised yxyx),
        `labels` (int32 `[G]`, from 1), `difficult` (bool `[G]`), `image_id` (string scalar),
        `height` and `width` (int32 scalars, pixels).
    """

    def scalar(dtype: tf.DType) -> tf.io.FixedLenFeature:
        return tf.io.FixedLenFeature([], dtype)

    def vector(dtype: tf.DType) -> tf.io.FixedLenSequenceFeature:
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    sides = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
    example = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": scalar(tf.string),
            "image/source_id": scalar(tf.string),
            "image/height": scalar(tf.int64),
            "image/width": scalar(tf.int64),
            "image/object/class/label": vector(tf.int64),
            "image/object/difficult": vector(tf.int64),
            **{side: vector(tf.float32) for side in sides},
        },
    )
    return {
        "image": example["image/encoded"],
        "boxes": tf.stack([example[side] for side in sides], axis=-1),  # [G, 4]
        "labels": tf.cast(example["image/object/class/label"], tf.int32),
        "difficult": tf.cast(example["image/object/difficult"], tf.bool),
        "image_id": example["image/source_id"],
        "height": tf.cast(example["image/height"], tf.int32),
        "width": tf.cast(example["image/width"], tf.int32),
    }


# --- a set of samples ---


def write_records(
    samples: Iterable[Sample],
    directory: str | os.PathLike[str],
    labels: Iterable[str],
    *,
    shards: int = 8,
    source: str = "",
    category_ids: Iterable[int] | None = None,
    notes: Notes | None = None,
) -> DataCard:
    """Writes samples as a record set, the card last.

    Samples are dealt to the shards in turn. What an interrupted run left in `directory` is
    replaced.

    Args:
        samples: The samples, read once.
        directory: Made if it is missing; must hold nothing but leftovers of an interrupted run.
        labels: Class names; the first is label id 1.
        shards: Number of files, at least 1.
        source: Where the samples come from, in words, for the card.
        category_ids: The source's own id of every label, for the card.
        notes: What the source left out; read after the last sample.

    Returns:
        The card, as written.

    Raises:
        ValueError: If `directory` holds something else, an image id occurs twice, a label id is
            not in 1..len(labels), or there are no labels or no samples.
    """
    directory = pathlib.Path(directory)
    labels = tuple(labels)
    notes = Notes() if notes is None else notes
    if shards < 1:
        raise ValueError(f"`shards` (={shards}) must be at least 1")
    if not labels:
        raise ValueError(f"there are no classes to write to {directory}: give their names")
    _clear_leftovers(directory)

    names = [f"records-{k:05d}-of-{shards:05d}.tfrecord" for k in range(shards)]
    truths: dict[str, Sample] = {}  # by image id, without the images
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(tf.io.TFRecordWriter(str(directory / name))) for name in names
        ]
        for index, sample in enumerate(samples):
            _check(sample, len(labels))
            if sample.image_id in truths:
                raise ValueError(
                    f"image id {sample.image_id!r} occurs twice; ids must be unique: "
                    "name every split and every image once"
                )
            writers[index % shards].write(serialize(sample))
            truths[sample.image_id] = dataclasses.replace(sample, image=b"")
    if not truths:
        reasons = ", ".join(f"{len(v)} x {reason}" for reason, v in notes.skipped.items())
        raise ValueError(f"there are no images to write to {directory}: {reasons or 'none found'}")

    card = make_card(
        boxes=[truth.boxes for truth in truths.values()],
        label_ids=[truth.labels for truth in truths.values()],
        difficult=[truth.difficult for truth in truths.values()],
        labels=labels,
        category_ids=None if category_ids is None else tuple(category_ids),
        source=source,
        notes=notes,
        shards={name: len(range(k, len(truths), shards)) for k, name in enumerate(names)},
        shard_bytes={name: (directory / name).stat().st_size for name in names},
    )
    write_card(card, directory)
    return card


def shard_paths(directory: str | os.PathLike[str]) -> list[str]:
    """Returns the paths of a complete record set's shards, in stored order."""
    return [os.path.join(directory, name) for name in read_card(directory).shards]


def read_samples(directory: str | os.PathLike[str]) -> Iterator[Sample]:
    """Reads a record set: shard after shard, each in its order."""
    dataset = tf.data.TFRecordDataset(shard_paths(directory)).map(parse_example)
    for record in dataset.as_numpy_iterator():
        yield Sample(
            image=record["image"],
            image_id=record["image_id"].decode(),
            height=int(record["height"]),
            width=int(record["width"]),
            boxes=record["boxes"],
            labels=record["labels"].astype(np.int64),
            difficult=record["difficult"],
        )


# --- helpers ---


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _ints(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))


def _floats(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _check(sample: Sample, num_classes: int) -> None:
    for label in sample.labels:
        if not 1 <= label <= num_classes:
            raise ValueError(
                f"image {sample.image_id!r} has label id {label}, but ids must be "
                f"from 1 to {num_classes}, the number of class names"
            )


def _clear_leftovers(directory: pathlib.Path) -> None:
    """Makes the directory, and empties it of an interrupted run's files; nothing else goes."""
    directory.mkdir(parents=True, exist_ok=True)
    present = sorted(path.name for path in directory.iterdir())
    foreign = [
        name
        for name in present
        if not _SHARD_PATTERN.fullmatch(name) and not name.endswith(f".{CARD_NAME}")
    ]
    if CARD_NAME in present:
        raise ValueError(
            f"{directory} already holds a record set: remove it or write to another directory"
        )
    if foreign:
        raise ValueError(
            f"{directory} already holds {foreign[0]!r}, which is not part of a record set: "
            "write to a directory of its own"
        )
    for name in present:
        (directory / name).unlink()
