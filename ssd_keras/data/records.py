"""Record sets: directories of `tf.train.Example` shards and one data card.

An example is one image with its ground truth. Its keys are those of the TensorFlow Object Detection
API. The card is written last, so a directory without a card is incomplete.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ssd_keras.data.card import CARD_NAME, DataCard, Notes, make_card, read_card, write_card
from ssd_keras.data.record_checks import FEATURES, REMEDY, SIDES, check_ground_truth
from ssd_keras.files import naming_full_disk, readable, reading
from ssd_keras.images import recorded_limit
from ssd_keras.shards import shard_of

_SHARD_PATTERN = re.compile(r"records-\d{5}-of-\d{5}\.tfrecord")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and its ground truth.

    Attributes:
        image: Content of the image file, JPEG or PNG.
        image_id: Name of the image, unique in its record set.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        boxes: float32 `[G, 4]`, normalized yxyx.
        labels: int64 `[G]`, label ids from 1.
        difficult: bool `[G]`. VOC's evaluation ignores difficult objects.
    """

    image: bytes
    image_id: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


# --- records ---


def serialize(sample: Sample) -> bytes:
    """Serializes a sample.

    Args:
        sample: The sample.

    Returns:
        A serialized `tf.train.Example`; the same bytes for the same sample.
    """
    is_png = sample.image.startswith(b"\x89PNG")
    ymin, xmin, ymax, xmax = np.asarray(sample.boxes, np.float32).reshape(-1, 4).T
    features = {
        "image/encoded": _bytes_feature(sample.image),
        "image/format": _bytes_feature(b"png" if is_png else b"jpeg"),
        "image/height": _int_feature([sample.height]),
        "image/width": _int_feature([sample.width]),
        "image/source_id": _bytes_feature(readable(sample.image_id).encode()),
        "image/object/bbox/ymin": _float_feature(ymin),
        "image/object/bbox/xmin": _float_feature(xmin),
        "image/object/bbox/ymax": _float_feature(ymax),
        "image/object/bbox/xmax": _float_feature(xmax),
        "image/object/class/label": _int_feature(sample.labels),
        "image/object/difficult": _int_feature(sample.difficult),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString(deterministic=True))


@tf.autograph.experimental.do_not_convert
def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses one record, eagerly or in a graph.

    Args:
        serialized: string scalar, a `tf.train.Example` written by `write_records`.

    Returns:
        A dictionary with "image" (string scalar, still encoded), "boxes" (float32 `[G, 4]`,
        normalized yxyx), "labels" (int32 `[G]`, from 1), "difficult" (bool `[G]`), "image_id"
        (string scalar), "height" and "width" (int32 scalars, pixels), and "max_pixels" (int64
        scalar, see `recorded_limit`).

    Raises:
        tf.errors.InvalidArgumentError: If the string is not an example with these keys.
    """
    example = tf.io.parse_single_example(serialized, FEATURES)
    return {
        "image": example["image/encoded"],
        "boxes": tf.stack([example[side] for side in SIDES], axis=-1),  # [G, 4]
        "labels": tf.cast(example["image/object/class/label"], tf.int32),
        "difficult": tf.cast(example["image/object/difficult"], tf.bool),
        "image_id": example["image/source_id"],
        "height": tf.cast(example["image/height"], tf.int32),
        "width": tf.cast(example["image/width"], tf.int32),
        "max_pixels": recorded_limit(example["image/height"], example["image/width"]),
    }


# --- record sets ---


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
    """Writes samples as a record set.

    A hash of its id says to which shard a sample goes; see `shard_of`. The card is written last.
    Files that an interrupted run left in `directory` are replaced.

    Args:
        samples: The samples. They are read once.
        directory: The directory to write to. It is created if it is missing. It must be empty,
            except for files of an interrupted run.
        labels: Class names; the first has label id 1.
        shards: Number of files, at least 1.
        source: Description of the source, for the card.
        category_ids: The id of each class in the source, for the card.
        notes: The items that the source skipped or changed, for the card. They are read after the
            last sample.

    Returns:
        The card.

    Raises:
        ValueError: If `directory` holds other files, an image id occurs twice, a sample is not
            valid (see `check_ground_truth`), `shards` is below 1, or there are no class names or no
            samples.
        OSError: If the disk is full.
    """
    directory = pathlib.Path(directory)
    labels = tuple(labels)
    notes = Notes() if notes is None else notes
    if shards < 1:
        raise ValueError(f"`shards` (={shards}) must be at least 1")
    if not labels:
        raise ValueError(
            f"there are no classes to write to {directory}: `labels` must hold at least one name"
        )
    _clear_leftovers(directory)

    paths = [directory / shard_name(k, shards) for k in range(shards)]
    card = write_files(
        samples, paths, labels, source=source, category_ids=category_ids, notes=notes
    )
    check_not_empty(card, directory)
    write_card(card, directory)
    return card


def shard_name(index: int, count: int) -> str:
    """Returns the file name of a shard of a record set."""
    return f"records-{index:05d}-of-{count:05d}.tfrecord"


def check_not_empty(card: DataCard, directory: pathlib.Path) -> None:
    """Raises a `ValueError` with the skipped items if a record set has no images."""
    if not card.num_images:
        reasons = ", ".join(f"{len(items)} x {reason}" for reason, items in card.skipped.items())
        raise ValueError(f"there are no images to write to {directory}: {reasons or 'none found'}")


def write_files(
    samples: Iterable[Sample],
    paths: Sequence[pathlib.Path],
    labels: tuple[str, ...],
    *,
    source: str,
    category_ids: Iterable[int] | None,
    notes: Notes,
    names: Sequence[str] | None = None,
) -> DataCard:
    """Writes samples to record files, by the hashes of their ids, and returns their card.

    Args:
        samples: See `write_records`.
        paths: The files.
        labels: Class names; the first has label id 1.
        source: See `write_records`.
        category_ids: See `write_records`.
        notes: See `write_records`.
        names: Names of the files in the card; default: those of `paths`.

    Raises:
        ValueError: If an image id occurs twice, or a sample is not valid.
        OSError: If the disk is full.
    """
    names = [path.name for path in paths] if names is None else names
    truths: dict[str, Sample] = {}  # by image id, without the images
    counts = [0] * len(paths)
    with naming_full_disk(paths[0].parent), contextlib.ExitStack() as stack:
        writers = [stack.enter_context(tf.io.TFRecordWriter(str(path))) for path in paths]
        for sample in samples:
            _check(sample, len(labels), f"image {sample.image_id!r}")
            if sample.image_id in truths:
                raise ValueError(
                    f"image id {sample.image_id!r} occurs twice; ids must be unique: "
                    "list every split and every image only once"
                )
            shard = shard_of(sample.image_id, len(paths))
            writers[shard].write(serialize(sample))
            counts[shard] += 1
            truths[sample.image_id] = dataclasses.replace(sample, image=b"")
    return make_card(
        boxes=[truth.boxes for truth in truths.values()],
        label_ids=[truth.labels for truth in truths.values()],
        difficult=[truth.difficult for truth in truths.values()],
        labels=labels,
        category_ids=None if category_ids is None else tuple(category_ids),
        source=source,
        notes=notes,
        shards=dict(zip(names, counts, strict=True)),
        shard_bytes={n: path.stat().st_size for n, path in zip(names, paths, strict=True)},
    )


def shard_paths(directory: str | os.PathLike[str]) -> list[str]:
    """Returns the paths of the shards of a record set, in stored order.

    Args:
        directory: Directory of the record set.

    Returns:
        One path for each shard.

    Raises:
        FileNotFoundError: If the record set is incomplete.
        ValueError: If its card or a shard is damaged; see `read_card`.
    """
    return [os.path.join(directory, name) for name in read_card(directory).shards]


def read_samples(directory: str | os.PathLike[str]) -> Iterator[Sample]:
    """Reads the samples of a record set, one shard after another.

    Args:
        directory: Directory of the record set.

    Yields:
        The samples in stored order.

    Raises:
        FileNotFoundError: If the record set is incomplete.
        ValueError: If its card or a shard is damaged, or a record is not valid; see `read_card` and
            `check_ground_truth`. The message names the shard and the record.
    """
    card = read_card(directory)
    for name, count in card.shards.items():
        path = os.path.join(directory, name)
        records = tf.data.TFRecordDataset(path).map(parse_example).as_numpy_iterator()
        for number in range(1, count + 1):
            with reading(path, REMEDY, fault=f"is damaged at record {number} of {count}"):
                sample = _sample(next(records))
                _check(sample, len(card.labels), f"record {number} of {path}")
            yield sample


def _sample(record: dict[str, Any]) -> Sample:
    return Sample(
        image=record["image"],
        image_id=record["image_id"].decode(),
        height=int(record["height"]),
        width=int(record["width"]),
        boxes=record["boxes"],
        labels=record["labels"].astype(np.int64),
        difficult=record["difficult"],
    )


# --- helpers ---


def _bytes_feature(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int_feature(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(v) for v in values]))


def _float_feature(values: Iterable[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _check(sample: Sample, num_classes: int, where: str) -> None:
    check_ground_truth(sample.boxes, sample.labels, sample.difficult, num_classes, where)


def _clear_leftovers(directory: pathlib.Path) -> None:
    """Creates the directory, or deletes the files of an interrupted run in it.

    Raises:
        ValueError: If the directory holds a record set or any other file.
    """
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
    if any(name.startswith("card-") for name in foreign):
        raise ValueError(
            f"{directory} holds shards of `prepare --shard`: complete them and run "
            "`prepare --merge`, or write to another directory"
        )
    if foreign:
        raise ValueError(
            f"{directory} already holds {foreign[0]!r}, which is not part of a record set: "
            "write to an empty directory"
        )
    for name in present:
        (directory / name).unlink()
