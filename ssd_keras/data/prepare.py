"""Writes datasets as record sets: selects the source by name and checks its options."""

import os
import pathlib
from collections.abc import Iterator

from ssd_keras.class_names import read_labels
from ssd_keras.data.card import DataCard, Notes, read_card
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample, read_samples, write_records
from ssd_keras.data.sources.coco import open_coco
from ssd_keras.data.sources.csv_table import open_csv
from ssd_keras.data.sources.cvat import open_cvat
from ssd_keras.data.sources.label_studio import open_label_studio
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.data.sources.source import Keep, Source
from ssd_keras.data.sources.voc import open_ilsvrc_det, open_voc
from ssd_keras.data.sources.yolo import open_yolo
from ssd_keras.images import MAX_PIXELS
from ssd_keras.progress import progress_bar

_FILES: dict[str, str | None] = {"labels": None, "max_pixels": None}

# Source -> its options. A required option has an example, for the error message; None means that
# the option is not required.
OPTIONS: dict[str, dict[str, str | None]] = {
    "voc": {"path": "VOCdevkit", "splits": None, **_FILES},
    "coco": {"path": "coco", "splits": "train2017 or my.json:images", **_FILES},
    "ilsvrc_det": {"path": "ILSVRC", "splits": "val", **_FILES},
    "yolo": {"path": "my_set", "splits": None, **_FILES},
    "csv": {"path": "my_set", "splits": "train.csv or train.csv:images", **_FILES},
    "cvat": {"path": "my_export", "splits": None, **_FILES},
    "label_studio": {"path": "my_set", "splits": "project.json", **_FILES},
    "tfds": {
        "path": "~/tensorflow_datasets",
        "splits": "train",
        "name": "voc/2007",
        "max_pixels": None,
    },
    "shapes": {"num_images": None, "seed": None},
}


def open_source(
    source: str,
    *,
    path: str | None = None,
    splits: str = "",
    labels: str | None = None,
    name: str | None = None,
    num_images: int = 1500,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens a dataset. Nothing is downloaded.

    Args:
        source: Format of the dataset, a key of `OPTIONS`: "voc", "coco", "ilsvrc_det", "yolo",
            "csv", "cvat", "label_studio", "tfds" or "shapes".
        path: Folder of the dataset. For "tfds", the `data_dir` of TensorFlow Datasets.
        splits: Splits to read, such as "2007:trainval+2012:trainval".
        labels: "voc", "coco" or "ilsvrc_det" for the class names in this package, or a file of
            class names; see `read_labels`. None uses the class names in the dataset, and for
            "ilsvrc_det" the names in this package. Not for "tfds" and "shapes".
        name: Name of the dataset in TensorFlow Datasets. Only for "tfds".
        num_images: Number of images to draw. Only for "shapes".
        seed: Seed of the images to draw. Only for "shapes".
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset, ready to be read.

    Raises:
        FileNotFoundError: If a file of the dataset is missing.
        ValueError: If a required option is missing, or the dataset is malformed.
    """
    given = {"path": path, "splits": splits, "name": name}
    for option, example in OPTIONS[source].items():
        if example and not given[option]:
            raise ValueError(
                f"--{option} is missing: --source={source} needs it, for example "
                f"--{option}={example}"
            )
    if source == "shapes":

        def draw(keep: Keep, notes: Notes) -> Iterator[Sample]:
            del notes  # every image is drawn
            return draw_shapes(num_images, seed, keep=keep)

        return Source(f"shapes, seed {seed}", SHAPE_LABELS, num_images, draw, Notes())
    folder = pathlib.Path(path or "").expanduser()  # the shell leaves --path=~/x unexpanded
    names = read_labels(labels) if labels else None
    match source:
        case "voc":
            return open_voc(folder, splits, names, max_pixels=max_pixels)
        case "coco":
            return open_coco(folder, splits, names, max_pixels=max_pixels)
        case "ilsvrc_det":
            names = names or read_labels("ilsvrc_det")
            return open_ilsvrc_det(folder, splits, names, max_pixels=max_pixels)
        case "yolo":
            return open_yolo(folder, splits, names, max_pixels=max_pixels)
        case "csv":
            return open_csv(folder, splits, names, max_pixels=max_pixels)
        case "cvat":
            return open_cvat(folder, splits, names, max_pixels=max_pixels)
        case "label_studio":
            return open_label_studio(folder, splits, names, max_pixels=max_pixels)
    from ssd_keras.data.sources.tfds import open_tfds  # the import takes ten seconds

    return open_tfds(folder, str(name), splits, max_pixels=max_pixels)


def prepare_records(source: Source, out: pathlib.Path, shards: int = 8) -> DataCard:
    """Writes a dataset as a record set, with a progress bar.

    Args:
        source: The dataset, from `open_source`.
        out: Directory to write to; see `write_records`.
        shards: Number of record files.

    Returns:
        The data card.

    Raises:
        ValueError: If the dataset cannot be written; see `write_records`.
        OSError: If the disk is full.
    """
    return write_records(
        progress_bar(source.num_images).over(source.samples),
        out,
        source.labels,
        shards=shards,
        source=source.description,
        category_ids=source.category_ids,
        notes=source.notes,
    )


def check_records(directory: str | os.PathLike[str]) -> DataCard:
    """Reads a whole record set, with a progress bar, and decodes its images.

    Args:
        directory: Directory of the record set.

    Returns:
        The data card.

    Raises:
        FileNotFoundError: If the record set is incomplete.
        ValueError: If the card, a shard or a record is damaged, or an image does not decode to the
            size in its record. The message names the shard and the record, or the image.
    """
    card = read_card(directory)
    bar = progress_bar(card.num_images)
    num_objects = 0
    for sample in read_samples(directory):
        notes = Notes()
        limit = max(MAX_PIXELS, sample.height * sample.width)
        image = load_image(sample.image, sample.image_id, notes, max_pixels=limit)
        size = image and (image.height, image.width)
        if size != (sample.height, sample.width):
            found = f"it is {size}" if size else ", ".join(notes.skipped)
            raise ValueError(
                f"image {sample.image_id!r} in {directory} must have the size "
                f"{(sample.height, sample.width)} of its record, but {found}: write the record set "
                "again with `ssd-keras prepare`"
            )
        num_objects += len(sample.labels)
        bar.add(1)
    if num_objects != card.num_objects:
        raise ValueError(
            f"{directory} holds {num_objects} objects, but its card counts {card.num_objects}: "
            "write the record set again with `ssd-keras prepare`"
        )
    return card


def card_summary(card: DataCard) -> str:
    """Summarizes a data card.

    Args:
        card: The card.

    Returns:
        One line for each class, with its number of objects, and one line for each reason why
        items were skipped or adjusted.
    """
    lines = [f"{name:>24} {count}" for name, count in card.objects_per_class.items()]
    for title, log in (("skipped", card.skipped), ("adjusted", card.adjusted)):
        for reason, names in log.items():
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{title}: {len(names)} x {reason} ({', '.join(names[:3])}{more})")
    return "\n".join(lines)
