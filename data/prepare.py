"""Writes a data set as records: sharded tf.train.Examples and a data card.

    python data/prepare.py --source=voc --path=VOCdevkit --splits=2007:trainval+2012:trainval \
        --labels=data/labels/voc.txt --out=records/voc0712

data/README.md has the command for every source.
"""

import pathlib
from collections.abc import Iterator

import keras
from absl import app, flags

from ssd_keras.coco_source import coco
from ssd_keras.commands import command
from ssd_keras.records import DataCard, Notes, Sample, write_records
from ssd_keras.shapes import SHAPE_LABELS, shapes
from ssd_keras.sources import Source, read_labels
from ssd_keras.voc_source import ilsvrc_det, voc
from ssd_keras.yolo_source import yolo

_SOURCE = flags.DEFINE_enum(
    "source", None, ["voc", "coco", "ilsvrc_det", "yolo", "tfds", "shapes"], "kind of data set"
)
_PATH = flags.DEFINE_string("path", None, "folder of the data set (tfds: the data_dir)")
_SPLITS = flags.DEFINE_string(
    "splits", "", "what to read: 2007:trainval+2012:trainval (voc), train2017 (coco), train (yolo)"
)
_OUT = flags.DEFINE_string("out", None, "folder for the records; must not hold anything else")
_LABELS = flags.DEFINE_string("labels", None, "file with one class name a line, in order")
_NAME = flags.DEFINE_string("name", None, "tfds: name of the data set, such as voc/2007")
_SHARDS = flags.DEFINE_integer("shards", 8, "number of record files", lower_bound=1)
_NUM_IMAGES = flags.DEFINE_integer("num_images", 1500, "shapes: how many to draw", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "shapes: take another for another split", lower_bound=0)

_USED = {
    "voc": {"path", "splits", "labels"},
    "coco": {"path", "splits", "labels"},
    "ilsvrc_det": {"path", "splits", "labels"},
    "yolo": {"path", "splits", "labels"},
    "tfds": {"path", "splits", "name"},
    "shapes": {"num_images", "seed"},
}
_REQUIRED = {  # of the above, and an example
    "voc": {"path": "VOCdevkit"},
    "coco": {"path": "coco", "splits": "train2017 or my.json:images"},
    "ilsvrc_det": {"path": "ILSVRC", "splits": "val"},
    "yolo": {"path": "my_set"},
    "tfds": {"path": "~/tensorflow_datasets", "splits": "train", "name": "voc/2007"},
    "shapes": {},
}
_ILSVRC_LABELS = pathlib.Path(__file__).with_name("labels") / "ilsvrc_det.txt"


def open_source() -> Source:
    """Opens the data set that the flags name."""
    for name in sorted(set().union(*_USED.values()) - _USED[_SOURCE.value]):
        if not flags.FLAGS[name].using_default_value:
            raise ValueError(f"--{name} is not used by --source={_SOURCE.value}")
    for name, example in _REQUIRED[_SOURCE.value].items():
        if not flags.FLAGS[name].value:
            raise ValueError(
                f"--{name} is missing: --source={_SOURCE.value} needs it, such as {example}"
            )
    if _SOURCE.value == "shapes":
        samples = shapes(_NUM_IMAGES.value, _SEED.value)
        return Source(
            f"shapes, seed {_SEED.value}", SHAPE_LABELS, _NUM_IMAGES.value, samples, Notes()
        )
    path = pathlib.Path(_PATH.value).expanduser()  # the shell leaves --path=~/x as it is
    labels = _LABELS.value and read_labels(pathlib.Path(_LABELS.value).expanduser())
    match _SOURCE.value:
        case "voc":
            return voc(path, _SPLITS.value, labels)
        case "coco":
            return coco(path, _SPLITS.value, labels)
        case "ilsvrc_det":
            return ilsvrc_det(path, _SPLITS.value, labels or read_labels(_ILSVRC_LABELS))
        case "yolo":
            return yolo(path, _SPLITS.value, labels)
    from ssd_keras.tfds_source import tfds_dataset  # its import takes ten seconds

    return tfds_dataset(path, _NAME.value, _SPLITS.value)


def with_progress(source: Source) -> Iterator[Sample]:
    """Passes the samples on and shows how far it is."""
    bar = keras.utils.Progbar(source.num_images, unit_name="image")
    for sample in source.samples:
        yield sample
        bar.add(1)


def summary(card: DataCard) -> str:
    """The card in a few lines."""
    lines = [f"{name:>24} {count}" for name, count in card.objects_per_class.items()]
    for title, log in (("skipped", card.skipped), ("adjusted", card.adjusted)):
        for reason, names in log.items():
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{title}: {len(names)} x {reason} ({', '.join(names[:3])}{more})")
    return "\n".join(lines)


@command
def main(argv: list[str]) -> None:
    """Reads the data set, writes the records and prints what they hold."""
    del argv
    source = open_source()
    out = pathlib.Path(_OUT.value).expanduser()
    try:
        card = write_records(
            with_progress(source),
            out,
            source.labels,
            shards=_SHARDS.value,
            source=source.description,
            category_ids=source.category_ids,
            notes=source.notes,
        )
    finally:
        print(flush=True)  # ends the line of the progress bar, also before an error
    print(summary(card))
    print(
        f"{out}: {card.num_images} images, {card.num_objects} objects "
        f"({card.num_difficult} difficult, at most {card.max_objects} in an image), "
        f"{len(card.labels)} classes, {len(card.shards)} shards"
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["source", "out"])
    app.run(main)
