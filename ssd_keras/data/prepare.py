"""From a data set to records: which source reads it, and which options the source needs."""

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

# The options of each source, with an example for those that must be given.
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
    """Opens a data set.

    Args:
        source: A key of `OPTIONS`.
        path: Folder of the data set; for "tfds" the `data_dir`.
        splits: The splits to read, such as "2007:trainval+2012:trainval".
        labels: File with one class name a line, or "voc", "coco" or "ilsvrc_det".
        name: Name of the data set in TFDS.
        num_images: Number of images of "shapes".
        seed: Seed of "shapes".

    Raises:
        FileNotFoundError: If a file of the data set is missing.
        ValueError: If an option is missing or the data set is malformed.
    """
    given = {"path": path, "splits": splits, "name": name}
    for option, example in OPTIONS[source].items():
        if example and not given[option]:
            raise ValueError(
                f"--{option} is missing: --source={source} needs it, such as {example}"
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
    """Writes a data set as records, with a progress bar.

    Args:
        source: From `open_source`.
        out: Folder to write to; see `write_records`.
        shards: Number of record files.

    Returns:
        The data card.

    Raises:
        ValueError: As `write_records`.
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
        print(flush=True)  # ends the line of the progress bar, also before an error


def card_summary(card: DataCard) -> str:
    """Objects per class, and what was skipped and adjusted, in a few lines."""
    lines = [f"{name:>24} {count}" for name, count in card.objects_per_class.items()]
    for title, log in (("skipped", card.skipped), ("adjusted", card.adjusted)):
        for reason, names in log.items():
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{title}: {len(names)} x {reason} ({', '.join(names[:3])}{more})")
    return "\n".join(lines)
