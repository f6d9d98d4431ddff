"""Measures the AP of narrow models on mosaics of drawn shapes, for two questions.

    python scripts/own_data_ap.py tilings OUT_FOLDER
    python scripts/own_data_ap.py inputs OUT_FOLDER

"tilings" compares the default boxes of the original's rule with fitted ones, at most as many. The
images have 192 x 192 pixels and nine drawings, so the objects are small in an input of 128 x 128.

"inputs" compares an input of 128 x 256 with a square input of about the same number of pixels,
184 x 184. The images have 128 x 256 pixels and eight drawings.

Each model has width 1/8, trains from scratch for 500 batches of 16 and two seeds, and is measured
on 60 other images.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.config import SSDConfig
from ssd_keras.data.box_coverage import coverage, object_boxes
from ssd_keras.data.fit_boxes import fitted_config
from ssd_keras.data.pipeline import train_dataset
from ssd_keras.data.records import Sample, write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.images import decode_image
from ssd_keras.inference.detector import keras_detector
from ssd_keras.inference.record_sets import detect_records
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16

TILE, STEPS, BATCH = 64, 500, 16
GRIDS = {"tilings": (3, 3), "inputs": (2, 4)}


def mosaics(count, seed, rows, columns):
    """Yields `count` samples, each a mosaic of rows x columns drawings."""
    tiles = draw_shapes(count * rows * columns, seed, image_size=TILE)
    for k in range(count):
        canvas = np.zeros((rows * TILE, columns * TILE, 3), np.uint8)
        boxes, labels = [], []
        for row in range(rows):
            for column in range(columns):
                tile = next(tiles)
                pixels = decode_image(tile.image).numpy()
                canvas[row * TILE :, column * TILE :][:TILE, :TILE] = pixels
                boxes.append((tile.boxes + np.array([row, column] * 2)) / ([rows, columns] * 2))
                labels.append(tile.labels)
        joined = np.concatenate(labels)
        yield Sample(
            tf.io.encode_png(canvas).numpy(),
            f"{seed}-{k}",
            *canvas.shape[:2],
            np.concatenate(boxes).astype(np.float32),
            joined,
            np.zeros(len(joined), bool),
        )


def measure(config, out, seed):
    """Trains a model from scratch and returns its AP."""
    keras.utils.set_random_seed(seed)
    model = ssd_vgg16(config, labels=SHAPE_LABELS, width=1 / 8)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, STEPS - 20, warmup_target=2e-3, warmup_steps=20
    )
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=5.0), loss=MultiBoxLoss())
    data = train_dataset(
        out / "train", config, BATCH, augmentation="flip_only", seed=seed, repeat=True
    )
    model.fit(data, steps_per_epoch=STEPS, verbose=0)
    found, samples, _ = detect_records(keras_detector(model), out / "test", BATCH)
    return voc_average_precision(found, samples, SHAPE_LABELS).mean_ap_area


def main():
    kind, out = sys.argv[1], Path(sys.argv[2])
    for name, count, seed in (("train", 400, 1), ("test", 60, 2)):
        if not (out / name / "card.json").exists():
            write_records(mosaics(count, seed, *GRIDS[kind]), out / name, SHAPE_LABELS)
    if kind == "tilings":
        paper = SSDConfig.for_image_size(128)
        configs = {"paper": paper, "fitted": fitted_config(object_boxes([out / "train"]), paper)}
    else:
        configs = {name: SSDConfig.for_image_size(s) for name, s in
                   (("128 x 256", (128, 256)), ("184 x 184", 184))}  # fmt: skip
    test = object_boxes([out / "test"])
    for name, config in configs.items():
        share = coverage(test, config).share
        print(
            f"{name}: {config.num_default_boxes} default boxes, {share:.3f} of the objects have an "
            "IoU of at least 0.5 with one of them"
        )
        print([(m.min_size, m.max_size, m.aspect_ratios) for m in config.feature_maps], flush=True)
    for seed in (0, 1):
        for name, config in configs.items():
            print(f"seed {seed}, {name}: AP {measure(config, out, seed):.3f}", flush=True)


if __name__ == "__main__":
    main()
