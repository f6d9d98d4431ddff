"""What the tests of training runs share: a recipe, a small network, records, and its history."""

import csv
import io

import keras
import numpy as np
from PIL import Image

from ssd_keras.data.records import Sample
from ssd_keras.model import ssd_vgg16
from ssd_keras.training.recipe import Recipe
from ssd_keras.vgg16 import CONVOLUTIONS
from tests.tiny import TINY

LABELS = ("red", "blue")
RECIPE = Recipe(
    iterations=4,
    batch_size=2,
    accumulate=2,
    eval_every=2,
    optimizer="adam",
    cosine=True,
    augmentation="flip_only",
)


def samples(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        image = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
        image[10:40, 20:60] = (255, 0, 0) if i % 2 else (0, 0, 255)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        yield Sample(
            image=file.getvalue(),
            image_id=f"image {i}",
            height=60,
            width=80,
            boxes=np.array([[10 / 60, 20 / 80, 40 / 60, 60 / 80]], np.float32),
            labels=np.array([2 - i % 2]),
            difficult=np.array([False]),
        )


def narrow(config=TINY, labels=LABELS):
    keras.utils.set_random_seed(0)
    return ssd_vgg16(config, len(labels), width=1 / 16, labels=labels)


def rows(run_dir):
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def vgg_file(path):
    """Writes a VGG16 with fc6 and fc7 under Caffe's names."""
    rng = np.random.default_rng(0)
    arrays = {}
    for layer in narrow().layers:
        if layer.name in ("fc6", "fc7", *CONVOLUTIONS):
            shape = layer.kernel.shape
            arrays[f"{layer.name}/0"] = rng.normal(0, 0.1, shape).astype("f").transpose(3, 2, 0, 1)
            arrays[f"{layer.name}/1"] = np.zeros(shape[-1], "f")
    np.savez(path, **arrays)
