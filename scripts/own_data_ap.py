"""AP of small trainings: a fitted tiling against the original's, and a wide input against a square.

    python scripts/own_data_ap.py tilings OUT_FOLDER
    python scripts/own_data_ap.py records OUT_FOLDER --train SETS --test SET [--one_class]
    python scripts/own_data_ap.py inputs OUT_FOLDER

"tilings": images of 192 x 192 pixels with nine drawings, so that the objects are small in an input
of 128 x 128; the original's box sizes against fitted ones, with at most as many default boxes.
"records": the same comparison on record sets. The tiling is fitted to the objects of the training
sets, warped and augmented, as `ssd-keras fit-boxes` does.
--one_class makes one class of all objects, for sets that are too small for their classes.
"inputs": images of 288 x 512 pixels, small drawings at the top and large ones at the bottom, as a
camera over a road sees them; an input of 288 x 512 against a square of as many pixels, 384 x 384.

Each model is trained for two seeds. The default is width 1/8 from random weights.
"""

import argparse
import dataclasses
import io
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from ssd_keras.augmentation.ops import AUGMENTATIONS
from ssd_keras.config import SSDConfig
from ssd_keras.data.box_coverage import coverage, object_boxes
from ssd_keras.data.card import read_card
from ssd_keras.data.fit_boxes import fitted_config
from ssd_keras.data.pipeline import train_dataset
from ssd_keras.data.records import Sample, read_samples, write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.inference.detector import keras_detector
from ssd_keras.inference.record_sets import detect_records
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16

# Rows of a mosaic: side of a tile in pixels, and tiles in the row.
ROWS = {"tilings": [(64, 3)] * 3, "inputs": [(32, 0), (64, 8), (64, 8), (128, 4)]}


def mosaics(count, seed, rows):
    """Samples of rows of drawings; a row has tiles of one size, or is empty."""
    number = count * sum(columns for _, columns in rows)
    sides = {side for side, columns in rows if columns}
    tiles = {side: draw_shapes(number, seed, image_size=side) for side in sides}
    height, width = sum(side for side, _ in rows), max(side * columns for side, columns in rows)
    for k in range(count):
        canvas = Image.new("RGB", (width, height))
        boxes, labels, top = [], [], 0
        for side, columns in rows:
            for left in range(0, side * columns, side):
                tile = next(tiles[side])
                canvas.paste(Image.open(io.BytesIO(tile.image)), (left, top))
                boxes.append(tile.boxes * side + np.tile([top, left], 2))
                labels.append(tile.labels)
            top += side
        encoded = io.BytesIO()
        canvas.save(encoded, "PNG")
        joined = np.concatenate(labels)
        corners = np.concatenate(boxes) / np.tile([height, width], 2)
        difficult = np.zeros(len(joined), bool)
        name = f"{seed}-{k}"
        yield Sample(
            encoded.getvalue(), name, height, width, corners.astype(np.float32), joined, difficult
        )


def one_class(directories):
    """The samples of record sets, with label 1 for all objects."""
    for directory in directories:
        for sample in read_samples(directory):
            labels = np.ones_like(sample.labels)
            yield dataclasses.replace(
                sample, image_id=f"{Path(directory).name}/{sample.image_id}", labels=labels
            )


def measure(config, train, test, seed, args):
    """Trains a model with a cosine schedule; returns its AP as text."""
    keras.utils.set_random_seed(seed)
    labels = read_card(test).labels
    model = ssd_vgg16(config, labels=labels, width=args.width, weights=args.weights)
    for layer in model.layers:
        if args.freeze and layer.name.startswith(tuple(args.freeze.split(","))):
            layer.trainable = False
    warmup = args.steps // 25
    rate = keras.optimizers.schedules.CosineDecay(
        args.rate / 20, args.steps - warmup, warmup_target=args.rate, warmup_steps=warmup
    )
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=5.0), loss=MultiBoxLoss())
    data = train_dataset(
        train, config, args.batch, augmentation=args.augmentation, seed=seed, repeat=True
    )
    model.fit(data, steps_per_epoch=args.steps, verbose=0)
    found, samples, _ = detect_records(keras_detector(model), test, args.batch)
    lines = [str(voc_average_precision(found, samples, labels))]
    for origin in sorted({s.image_id.split("/")[0] for s in samples} if args.one_class else ()):
        part = [k for k, s in enumerate(samples) if s.image_id.startswith(f"{origin}/")]
        result = voc_average_precision([found[k] for k in part], [samples[k] for k in part], labels)
        lines.append(f"{origin}, {len(part)} images: area AP {result.mean_ap_area:.4f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("tilings", "records", "inputs"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", default="", help="record sets, separated by commas")
    parser.add_argument("--test", default="", help="record sets, separated by commas")
    parser.add_argument("--one_class", action="store_true")
    parser.add_argument("--size", type=int, default=300, help="input of `records`")
    parser.add_argument("--width", type=float, default=1 / 8)
    parser.add_argument("--weights", help="file of VGG16 to start from; needs --width 1")
    parser.add_argument("--freeze", help="prefixes of layers, separated by commas")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--augmentation", default="flip_only", choices=AUGMENTATIONS)
    args = parser.parse_args()

    train, tests = args.train.split(","), args.test.split(",")
    if args.kind != "records" or args.one_class:
        sets = {"train": (400, 1, train), "test": (60, 2, tests)}
        for name, (count, seed, directories) in sets.items():
            if not (args.out / name / "card.json").exists():
                if args.kind == "records":
                    samples, labels = one_class(directories), ("object",)
                else:
                    samples, labels = mosaics(count, seed, ROWS[args.kind]), SHAPE_LABELS
                write_records(samples, args.out / name, labels)
        train, tests = [args.out / "train"], [args.out / "test"]

    if args.kind == "inputs":
        configs = {"288 x 512": SSDConfig.for_image_size((288, 512)),
                   "384 x 384": SSDConfig.for_image_size(384)}  # fmt: skip
    else:
        paper = SSDConfig.for_image_size(args.size if args.kind == "records" else 128)
        objects = object_boxes(train)
        if args.kind == "records":
            objects = [*objects, *object_boxes(train, AUGMENTATIONS[args.augmentation])]
        configs = {"paper": paper, "fitted": fitted_config(objects, paper)}
    augmented = object_boxes(train, AUGMENTATIONS[args.augmentation])
    views = {"test": object_boxes(tests), "augmented training": augmented}
    for name, config in configs.items():
        shares = [f"{coverage(boxes, config).share:.3f} ({view})" for view, boxes in views.items()]
        print(f"{name}: {config.num_default_boxes} default boxes; at IoU 0.5 {', '.join(shares)}")
        print([(m.min_size, m.max_size, m.aspect_ratios) for m in config.feature_maps], flush=True)
    for seed in (0, 1):
        for name, config in configs.items():
            start = time.monotonic()
            result = measure(config, train, tests[0], seed, args)
            seconds = time.monotonic() - start
            print(f"seed {seed}, {name}, {seconds:.0f} s\n{result}\n", flush=True)


if __name__ == "__main__":
    main()
