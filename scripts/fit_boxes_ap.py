"""AP of a fitted tiling and of the paper's, on small objects, with the same number of boxes.

    python scripts/fit_boxes_ap.py OUT_FOLDER

Draws images of 192 x 192 pixels with nine drawings of `shapes` each, so that the objects are small
in an input of 128 x 128. Trains a narrow model (width 1/8) from scratch with either tiling and two
seeds, and prints the AP on other images.
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

TILE, GRID, STEPS, BATCH = 64, 3, 500, 16


def mosaics(count, seed):
    """Samples of GRID x GRID drawings."""
    tiles = draw_shapes(count * GRID * GRID, seed, image_size=TILE)
    for k in range(count):
        canvas = np.zeros((GRID * TILE, GRID * TILE, 3), np.uint8)
        boxes, labels = [], []
        for row in range(GRID):
            for column in range(GRID):
                tile = next(tiles)
                pixels = decode_image(tile.image).numpy()
                canvas[row * TILE :, column * TILE :][:TILE, :TILE] = pixels
                boxes.append((tile.boxes + np.array([row, column] * 2)) / GRID)
                labels.append(tile.labels)
        labels = np.concatenate(labels)
        yield Sample(
            tf.io.encode_png(canvas).numpy(),
            f"{seed}-{k}",
            *canvas.shape[:2],
            np.concatenate(boxes).astype(np.float32),
            labels,
            np.zeros(len(labels), bool),
        )


def main():
    out = Path(sys.argv[1])
    for name, count, seed in (("train", 400, 1), ("test", 60, 2)):
        if not (out / name / "card.json").exists():
            write_records(mosaics(count, seed), out / name, SHAPE_LABELS)
    paper = SSDConfig.for_image_size(128)
    plain = object_boxes([out / "train"])
    tilings = {"paper": paper, "fitted": fitted_config(plain, paper)}
    for name, config in tilings.items():
        share = coverage(object_boxes([out / "test"]), config).share
        print(
            f"{name}: {config.num_default_boxes} boxes, {share:.3f} of the test objects", flush=True
        )
        print([(m.min_size, m.max_size, m.aspect_ratios) for m in config.feature_maps], flush=True)
    for seed in (0, 1):
        for name, config in tilings.items():
            keras.utils.set_random_seed(seed)
            model = ssd_vgg16(config, labels=SHAPE_LABELS, width=1 / 8)
            rate = keras.optimizers.schedules.CosineDecay(
                1e-4, STEPS - 20, warmup_target=2e-3, warmup_steps=20
            )
            model.compile(keras.optimizers.Adam(rate, global_clipnorm=5.0), loss=MultiBoxLoss())
            data = train_dataset(
                out / "train", config, BATCH, augmentation="flip_only", seed=seed, repeat=True
            )
            history = model.fit(data, steps_per_epoch=STEPS, verbose=0).history
            found, samples, _ = detect_records(keras_detector(model), out / "test", BATCH)
            result = voc_average_precision(found, samples, SHAPE_LABELS)
            print(
                f"seed {seed}, {name}: AP {result.mean_ap_area:.3f}, "
                f"mean loss {history['loss'][0]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
