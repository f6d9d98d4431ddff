"""Writes datasets as record sets: selects the source by name and checks its options."""

import pathlib
from collections.abc import Iterator

from ssd_keras.class_names import read_labels
from ssd_keras.data.card import DataCard, Notes
from ssd_keras.data.records import Sample, write_records
from ssd_keras.data.sources.coco import open_coco
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.data.sources.source import Source
from ssd_keras.data.sources.voc import open_ilsvrc_det, open_voc
from ssd_keras.data.sources.yolo import open_yolo
from ssd_keras.progress import progress_bar

# Source -> its options. Required options have an example, for the error message.
OPTIONS: dict[str, dict[str, str | None]] = {
    "voc": {"path": "VOCdevkit", "splits": None, "labels": None},
    "coco": {"path": "coco", "splits": "train2017 or my.json:images", "labels": None},
    "ilsvrc_det": {"path": "ILSVRC", "splits": "val", "labels": None},
    "yolo": {"path": "my_set", "splits": None, "labels": None},
    "tfds": {"path": "~/tensorflow_datasets", "splits": "train", "name": "voc/2007"},
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
) -> Source:
    """Opens a dataset. Nothing is downloaded.

    Args:
        source: A key of `OPTIONS`: "voc", "coco", "ilsvrc_det", "yolo", "tfds" or "shapes".
        path: Folder of the dataset. For "tfds", the `data_dir` of TensorFlow Datasets.
        splits: Splits to read, such as "2007:trainval+2012:trainval".
        labels: "voc", "coco" or "ilsvrc_det" for the class names in this package, or a file of
            class names; see `read_labels`. None uses the class names in the dataset, and for
            "ilsvrc_det" the names in this package. Not for "tfds" and "shapes".
        name: Name of the dataset in TensorFlow Datasets. Only for "tfds".
        num_images: Number of images to draw. Only for "shapes".
        seed: Seed of the images to draw. Only for "shapes".

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
        samples = draw_shapes(num_images, seed)
        return Source(f"shapes, seed {seed}", SHAPE_LABELS, num_images, samples, Notes())
    folder = pathlib.Path(path or "").expanduser()  # the shell leaves --path=~/x unexpanded
    names = read_labels(labels) if labels else None
    match source:
        case "voc":
            return open_voc(folder, splits, names)
        case "coco":
            return open_coco(folder, splits, names)
        case "ilsvrc_det":
            return open_ilsvrc_det(folder, splits, names or read_labels("ilsvrc_det"))
        case "yolo":
            return open_yolo(folder, splits, names)
    from ssd_keras.data.sources.tfds import open_tfds  # the import takes ten seconds

    return open_tfds(folder, str(name), splits)


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
    """
    bar = progress_bar(source.num_images)

    def with_progress() -> Iterator[Sample]:
        for sample in source.samples:
            yield sample
            bar.add(1)

    try:
        return write_records(
            with_progress(),
            out,
            source.labels,
            shards=shards,
            source=source.description,
            category_ids=source.category_ids,
            notes=source.notes,
        )
    finally:
        print(flush=True)  # ends the line of the progress bar, so that an error starts a new one


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
