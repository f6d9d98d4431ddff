"""Shows what the network is fed: a contact sheet of a run's samples, pixel by pixel its own.

    python data/preview.py --records=records/voc0712 --out=preview.png

With the records, the seed and the augmentation of a training, image k is image k of that training:
batch n of B images is --first=n*B --images=B.

Each picture has the ground truth in thick lines, the default boxes matched to it in thin ones of
the same colour, and what was drawn: expansion, crop and the IoU its sampler asks for,
interpolation, mirror and the photometric ops in their order.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image, ImageDraw

from ssd_keras.augment import AUGMENTATIONS, Op
from ssd_keras.boxes import cyxhw_to_yxyx
from ssd_keras.commands import command
from ssd_keras.config import CONFIGS, SSDConfig
from ssd_keras.crop import MIN_IOU
from ssd_keras.default_boxes import default_boxes
from ssd_keras.files import atomic
from ssd_keras.matching import match
from ssd_keras.pipeline import endless_records, training_sample
from ssd_keras.records import parse_example, read_card
from ssd_keras.resample import INTERPOLATIONS
from ssd_keras.visualize import class_colour, contact_sheet, draw_detections

_RECORDS = flags.DEFINE_list("records", None, "Record sets, as of the training.", required=True)
_OUT = flags.DEFINE_string("out", "preview.png", "The PNG to write.")
_CONFIG = flags.DEFINE_enum("config", "SSD300_VOC", list(CONFIGS), "Released tiling.")
_AUGMENTATION = flags.DEFINE_enum("augmentation", "ssd", list(AUGMENTATIONS), "Variant.")
_USE_DIFFICULT = flags.DEFINE_bool("use_difficult", True, "As of the training.")
_SEED = flags.DEFINE_integer("seed", 0, "The run's.", lower_bound=0)
_FIRST = flags.DEFINE_integer("first", 0, "Which of the run's images comes first.", lower_bound=0)
_IMAGES = flags.DEFINE_integer("images", 20, "How many.", lower_bound=1)
_COLUMNS = flags.DEFINE_integer("columns", 5, "Images a row.", lower_bound=1)


def fed_samples(
    records: list[str],
    config: SSDConfig,
    ops: tuple[Op, ...],
    *,
    seed: int = 0,
    first: int = 0,
    use_difficult: bool = True,
) -> Iterator[dict[str, Any]]:
    """The samples of a run from its image `first` on: as of `augment`, in NumPy, with "height"."""
    cards = [read_card(directory) for directory in records]
    positions = endless_records(records, cards, seed, skipped=first)

    def make(record: tf.Tensor, position: tf.Tensor) -> dict[str, Any]:
        sample = training_sample(record, position, config, seed, ops)
        return sample | {"height": parse_example(record)["height"]}

    for sample in positions.map(make).as_numpy_iterator():
        keep = ~sample["difficult"] | use_difficult
        yield sample | {name: sample[name][keep] for name in ("boxes", "labels", "difficult")}


def describe(params: dict[str, Any], height: int) -> str:
    """The drawn parameters in a few lines; `height` is the image's own, pixels."""
    lines = [f"expand {params['canvas'][0] / height:.2f}"]
    names = ("whole image", *(f"IoU {least} or more" for least in MIN_IOU[:-1]), "anywhere")
    lines.append(f"crop {names[params['sampler']]}")
    mirror = ", mirrored" if params["mirror"] else ""
    lines.append(INTERPOLATIONS[params["interpolation"]] + mirror)
    d = params.get("distortion")
    if d is not None:
        amounts = (
            f"brightness {d.brightness:+.0f}",
            f"contrast x{d.contrast:.2f}",
            f"saturation x{d.saturation:.2f}",
            f"hue {2 * d.hue:+.0f} degrees",
        )
        order = (0, 1, 2, 3) if d.contrast_first else (0, 2, 3, 1)
        lines += [amounts[k] for k in order if d.applied[k]]
    return "\n".join(lines)


def draw_sample(sample: dict[str, Any], config: SSDConfig, labels: tuple[str, ...]) -> Image.Image:
    """One cell of the sheet, from one of `fed_samples`."""
    boxes, classes = sample["boxes"], sample["labels"]
    truth = np.concatenate([boxes, classes[:, None]], axis=1, dtype=np.float32)
    defaults = default_boxes(config)
    matched = match(truth[None], defaults)[0].numpy()
    picture = Image.fromarray(sample["image"].astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    corners = cyxhw_to_yxyx(tf.constant(defaults)).numpy() * config.image_size
    for k in np.flatnonzero(matched >= 0):
        ymin, xmin, ymax, xmax = corners[k].tolist()
        draw.rectangle((xmin, ymin, xmax, ymax), outline=class_colour(int(classes[matched[k]])))
    picture = draw_detections(picture, boxes, classes, labels)
    text = f"{describe(sample['params'], sample['height'])}\n{np.sum(matched >= 0)} matched"
    ImageDraw.Draw(picture).multiline_text(  # below, as tags of classes are above
        (4, picture.height - 4),
        text,
        fill="white",
        anchor="ld",
        stroke_width=2,
        stroke_fill="black",
    )
    return picture


@command
def main(argv: list[str]) -> None:
    """Writes the sheet."""
    config, ops = CONFIGS[_CONFIG.value], AUGMENTATIONS[_AUGMENTATION.value]
    labels = read_card(_RECORDS.value[0]).labels
    fed = fed_samples(
        _RECORDS.value,
        config,
        ops,
        seed=_SEED.value,
        first=_FIRST.value,
        use_difficult=_USE_DIFFICULT.value,
    )
    cells = [draw_sample(sample, config, labels) for sample in itertools.islice(fed, _IMAGES.value)]
    sheet = contact_sheet(cells, columns=_COLUMNS.value, cell=config.image_size)
    with atomic(_OUT.value) as temporary:
        sheet.save(temporary, "PNG")
    print(f"{len(cells)} samples: {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
