"""Shows what the network is fed: a contact sheet of augmented samples.

    python data/preview.py --records=records/voc0712 --out=preview.png

Each picture has the ground truth in thick lines, the default boxes matched to it in thin ones of
the same colour, and what was drawn: expansion, sampler and its least IoU, interpolation, mirror and
the photometric ops in their order.
"""

import functools
import itertools
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image, ImageDraw

from ssd_keras.augment import AUGMENTATIONS, augment
from ssd_keras.boxes import cyxhw_to_yxyx
from ssd_keras.commands import command
from ssd_keras.config import CONFIGS, SSDConfig
from ssd_keras.crop import MIN_IOU
from ssd_keras.default_boxes import default_boxes
from ssd_keras.files import atomic
from ssd_keras.matching import match
from ssd_keras.records import parse_example, read_card, shard_paths
from ssd_keras.resample import INTERPOLATIONS
from ssd_keras.visualize import class_colour, contact_sheet, draw_detections

_RECORDS = flags.DEFINE_string("records", None, "Record set to look at.", required=True)
_OUT = flags.DEFINE_string("out", "preview.png", "The PNG to write.")
_CONFIG = flags.DEFINE_enum("config", "SSD300_VOC", list(CONFIGS), "Released tiling.")
_AUGMENTATION = flags.DEFINE_enum("augmentation", "ssd", list(AUGMENTATIONS), "Variant.")
_IMAGES = flags.DEFINE_integer("images", 4, "Images, one a row.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 5, "Draws of each image.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0)


def describe(params: dict[str, Any], height: int) -> str:
    """The drawn parameters in a few lines; `height` is the image's own, pixels."""
    lines = [f"expand {params['canvas'][0] / height:.2f}"]
    sampler = int(params["sampler"])
    least = ("whole", *(f"IoU {least}" for least in MIN_IOU[:-1]), "any")[sampler]
    lines.append(f"sampler {sampler + 1} ({least})")
    mirror = ", mirrored" if params["mirror"] else ""
    lines.append(INTERPOLATIONS[params["interpolation"]] + mirror)
    d = params.get("distortion")
    if d is not None:
        amounts = [f"{name} {getattr(d, name):+.2f}" for name in d._fields[2:]]
        order = (0, 1, 2, 3) if d.contrast_first else (0, 2, 3, 1)
        lines += [amounts[k] for k in order if d.applied[k]]
    return "\n".join(lines)


def draw_sample(
    sample: dict[str, Any], height: int, config: SSDConfig, labels: tuple[str, ...]
) -> Image.Image:
    """One cell of the sheet, from the NumPy values of an augmented sample."""
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
    text = f"{describe(sample['params'], height)}\n{np.sum(matched >= 0)} matched"
    ImageDraw.Draw(picture).multiline_text(
        (4, 4), text, fill="white", stroke_width=2, stroke_fill="black"
    )
    return picture


@command
def main(argv: list[str]) -> None:
    """Writes the sheet."""
    config, ops = CONFIGS[_CONFIG.value], AUGMENTATIONS[_AUGMENTATION.value]
    labels = read_card(_RECORDS.value).labels
    draw_one = tf.function(functools.partial(augment, config=config, ops=ops))
    cells = []
    records = tf.data.TFRecordDataset(shard_paths(_RECORDS.value)).map(parse_example)
    for row, parsed in enumerate(itertools.islice(records, _IMAGES.value)):
        for column in range(_DRAWS.value):
            seed = tf.constant([_SEED.value, row * _DRAWS.value + column], tf.int64)
            sample = tf.nest.map_structure(lambda x: x.numpy(), draw_one(parsed, seed=seed))
            cells.append(draw_sample(sample, int(parsed["height"]), config, labels))
    sheet = contact_sheet(cells, columns=_DRAWS.value, cell=config.image_size)
    with atomic(_OUT.value) as temporary:
        sheet.save(temporary, "PNG")
    print(f"{len(cells)} samples: {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
