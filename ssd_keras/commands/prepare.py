r"""Writes a dataset as a record set: shards of tf.train.Example and a data card.

    ssd-keras prepare --source=voc --path=VOCdevkit --splits=2007:trainval+2012:trainval \
        --labels=voc --out=records/voc0712

    ssd-keras prepare --check=records/voc0712

With --shard=k/n the command writes one of n record files, for jobs that run side by side and can be
run again:

    ssd-keras prepare --source=voc --path=VOCdevkit --splits=2007:trainval --shard=0/16 \
        --out=records/voc07
    ssd-keras prepare --merge=records/voc07

--runner=DirectRunner writes all record files over Apache Beam, and then the card.

--merge completes the record set when all jobs are done. --check reads a whole record set and names
the first record that is not valid.

The file data/README.md in the repository has the commands for every source.
"""

import functools
import pathlib

from absl import flags

from ssd_keras.commands.beam_flags import define_beam_flags, run_all_shards, runs_over_beam
from ssd_keras.data.card import DataCard
from ssd_keras.data.prepare import (
    OPTIONS,
    card_summary,
    check_records,
    open_source,
    prepare_records,
)
from ssd_keras.data.record_shards import merge_shards, prepare_shard, shard_writer
from ssd_keras.images import MAX_PIXELS
from ssd_keras.shards import parse_shard

_SOURCE = flags.DEFINE_enum("source", None, list(OPTIONS), "Format of the dataset.")
_OUT = flags.DEFINE_string("out", None, "Folder for the records; it must hold no other files.")
_MERGE = flags.DEFINE_string("merge", None, "Folder of the shards of --shard to complete instead.")
_CHECK = flags.DEFINE_string("check", None, "Folder of a record set to check instead.")
flags.DEFINE_string("path", None, "Folder of the dataset (tfds: the data_dir).")
flags.DEFINE_string(
    "splits",
    "",
    "Splits to read: 2007:trainval+2012:trainval (voc), train2017 (coco), train (yolo), "
    "train.csv:images (csv), annotations.xml (cvat), project.json (label_studio).",
)
flags.DEFINE_string(
    "labels",
    None,
    "Class names: voc, coco, ilsvrc_det, or a file with one name per line in order of label ids. "
    "By default the class names in the dataset (ilsvrc_det: those in this package).",
)
flags.DEFINE_string("name", None, "tfds: name of the dataset, such as voc/2007.")
flags.DEFINE_integer("num_images", 1500, "shapes: number of images to draw.", lower_bound=1)
flags.DEFINE_integer(
    "seed", 0, "shapes: seed; training and test sets need different seeds.", lower_bound=0
)
flags.DEFINE_integer(
    "max_pixels",
    MAX_PIXELS,
    "Limit for the height times the width of an image; larger images are left out.",
    lower_bound=1,
)
_SHARDS = flags.DEFINE_integer("shards", 8, "Number of record files.", lower_bound=1)
_SHARD = flags.DEFINE_string("shard", None, "k/n: write only record file k (from 0) of n.")
define_beam_flags()


def interrupted() -> str:
    """Returns the message for Ctrl-C."""
    return f"the records in {_OUT.value} are incomplete; run the command again"


def main(words: list[str]) -> None:
    """Reads the dataset, writes the records and prints a summary."""
    del words
    for flag in (_CHECK, _MERGE):
        given = [other.name for other in (_SOURCE, _OUT, _SHARD, _MERGE) if other.present]
        given = [name for name in given if name != flag.name]
        if flag.value and given:
            raise ValueError(f"--{flag.name} (={flag.value}) needs no --{given[0]}: remove it")
    if _CHECK.value:
        card = check_records(_CHECK.value)
        print(f"{_CHECK.value}: {card.num_images} images, {card.num_objects} objects, all valid")
        return
    if _MERGE.value:
        folder = pathlib.Path(_MERGE.value).expanduser()
        _print_card(merge_shards(folder), folder)
        return
    for flag in (_SOURCE, _OUT):
        if not flag.value:
            raise ValueError(
                f"--{flag.name} is missing: give --source and --out, or only --merge or --check"
            )
    options = {name for names in OPTIONS.values() for name in names}
    for name in sorted(options - OPTIONS[_SOURCE.value].keys()):
        if not flags.FLAGS[name].using_default_value:
            raise ValueError(f"--{name} is not used by --source={_SOURCE.value}: remove it")
    values = {name: flags.FLAGS[name].value for name in options}
    out = pathlib.Path(_OUT.value).expanduser()
    if runs_over_beam():
        if _SHARD.value:
            raise ValueError("--runner processes all shards: remove --shard")
        start = functools.partial(shard_writer, _SOURCE.value, values, out, _SHARDS.value)
        print(run_all_shards(start, range(_SHARDS.value)))
        _print_card(merge_shards(out), out)
        return
    source = open_source(_SOURCE.value, **values)
    if _SHARD.value:
        if _SHARDS.present:
            raise ValueError("--shard names the number of record files: remove --shards")
        index, count = parse_shard(_SHARD.value)
        part = prepare_shard(source, out, index, count)
        done = "exists: skipped" if part is None else f"{part.num_images} images"
        print(f"{out}, shard {index} of {count}: {done}")
        return
    _print_card(prepare_records(source, out, _SHARDS.value), out)


def _print_card(card: DataCard, out: pathlib.Path) -> None:
    print(card_summary(card))
    print(
        f"{out}: {card.num_images} images, {card.num_objects} objects "
        f"({card.num_difficult} difficult, at most {card.max_objects} in an image), "
        f"{len(card.labels)} classes, {len(card.shards)} shards"
    )
