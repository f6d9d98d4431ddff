"""Command: trains SSD on record sets.

    python -m ssd_keras.train --records records/voc0712 --val_records records/voc07test \
        --weights imagenet --run_dir runs/voc

The defaults are the original's recipe. Run again with the same flags, it goes on where it stopped.
Writes run.json, weights.txt (what was loaded), last.keras (the checkpoint), best.keras,
history.csv, history.png and tensorboard/ into the run's folder.
"""

import dataclasses
import os
from typing import Any

import keras
import tensorflow as tf
from absl import app, flags

from ssd_keras import config as configs
from ssd_keras.augment import AUGMENTATIONS
from ssd_keras.callbacks import BEST, HISTORY
from ssd_keras.commands import command
from ssd_keras.model import ssd_vgg16
from ssd_keras.records import read_card
from ssd_keras.sources import read_labels
from ssd_keras.training import Recipe, train
from ssd_keras.visualize import plot_history
from ssd_keras.weight_sources import SOURCES

_R: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Recipe)}

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
_RECORDS = flags.DEFINE_list("records", None, "Record sets to train on.", required=True)
_VAL = flags.DEFINE_string("val_records", None, "Record set to measure VOC AP on.")
_CONFIG = flags.DEFINE_enum("config", "SSD300_VOC", list(configs.CONFIGS), "Released tiling.")
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Where to start: 'imagenet', or a file of a VGG16 or a whole SSD, of this package or others "
    "(.keras, .npz, .h5, .pth, .safetensors, .caffemodel); else random.",
)
_SOURCE = flags.DEFINE_enum(
    "weights_source",
    None,
    [source.name for source in SOURCES],
    "Whose file it is; found by default.",
)
_SOURCE_CLASSES = flags.DEFINE_string(
    "source_classes", None, "Class names of that file, one a line, if they are not VOC's or COCO's."
)
_SOURCE_CONFIG = flags.DEFINE_enum(
    "source_config", None, list(configs.CONFIGS), "Tiling of that file, if it is not the usual one."
)
flags.DEFINE_alias("init", "weights")
flags.DEFINE_alias("init-source", "weights_source")
_CLASSES = flags.DEFINE_string(
    "classes", None, "File with one class name a line; must be those of the records, the default."
)
_WIDTH = flags.DEFINE_float("width", 1.0, "Factor on the filters of every layer but the heads.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "What to compute in: mixed_float16 for GPUs, mixed_bfloat16 for newer CPUs and TPUs.",
)
_MIRRORED = flags.DEFINE_bool("mirrored", False, "Train on all GPUs of this machine.")
_SERVICE = flags.DEFINE_string(
    "service", None, "Address (grpc://host:port) of a tf.data service that makes the batches."
)
_LIMIT = flags.DEFINE_float("gradient_limit", 1e6, "Stop when the gradients' norm is above it.")

flags.DEFINE_integer("iterations", _R["iterations"], "Steps of the optimizer in all.")
flags.DEFINE_integer("batch_size", _R["batch_size"], "Images a batch.")
flags.DEFINE_integer("accumulate", _R["accumulate"], "Batches averaged for one step.")
flags.DEFINE_enum("optimizer", _R["optimizer"], ["sgd", "adam"], "Optimizer.")
flags.DEFINE_float("learning_rate", _R["learning_rate"], "Rate after the warm-up.")
flags.DEFINE_list(
    "boundaries",
    [str(b) for b in _R["boundaries"]],
    "Iterations at which the rate is divided by 10.",
)
flags.DEFINE_bool("cosine", _R["cosine"], "Let the rate fall as half a cosine instead.")
flags.DEFINE_integer("warmup", _R["warmup"], "Iterations of linear warm-up.")
flags.DEFINE_float("momentum", _R["momentum"], "Momentum of SGD.")
flags.DEFINE_float("weight_decay", _R["weight_decay"], "Coupled L2 on all but biases, with SGD.")
flags.DEFINE_float("clip_norm", _R["clip_norm"], "Largest norm of the gradients; 0: no limit.")
flags.DEFINE_enum("augmentation", _R["augmentation"], list(AUGMENTATIONS), "Augmentation variant.")
flags.DEFINE_integer("max_boxes", _R["max_boxes"], "Objects an image is padded or cut to.")
flags.DEFINE_bool("use_difficult", _R["use_difficult"], "Learn difficult objects (COCO: no).")
flags.DEFINE_list("freeze", [], "Layers that do not learn, such as conv1_*,conv2_*.")
flags.DEFINE_integer("eval_every", _R["eval_every"], "Iterations between two checkpoints.")
flags.DEFINE_integer("seed", _R["seed"], "Of initial weights, order of images and augmentation.")


@command
def main(argv: list[str]) -> None:
    """Builds the model and trains it."""
    values = {name: flags.FLAGS[name].value for name in _R}
    boundaries = values["boundaries"] or ()
    if not all(boundary.isdecimal() for boundary in boundaries):
        raise ValueError(f"--boundaries (={','.join(boundaries)}) must be whole numbers")
    values["boundaries"] = tuple(map(int, boundaries))
    values["freeze"] = tuple(values["freeze"] or ())
    recipe = Recipe(**values)
    labels = read_card(_RECORDS.value[0]).labels
    if _CLASSES.value is not None:
        labels = tuple(read_labels(_CLASSES.value).values())
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(_PRECISION.value)
    strategy = tf.distribute.MirroredStrategy() if _MIRRORED.value else tf.distribute.get_strategy()
    with strategy.scope():
        model = ssd_vgg16(
            configs.CONFIGS[_CONFIG.value],
            len(labels),
            width=_WIDTH.value,
            labels=labels,
        )
        train(
            model,
            recipe,
            _RUN_DIR.value,
            _RECORDS.value,
            val_records=_VAL.value,
            weights=_weights(),
            gradient_limit=_LIMIT.value,
            service=_SERVICE.value,
        )
    history = os.path.join(_RUN_DIR.value, HISTORY)
    plot_history(history, os.path.join(_RUN_DIR.value, "history.png"))
    print(f"trained {recipe.iterations} iterations: {os.path.join(_RUN_DIR.value, BEST)}")


def _weights() -> dict[str, Any] | None:
    """Arguments of `load_weights`."""
    if _WEIGHTS.value is None:
        return None
    names = _SOURCE_CLASSES.value and tuple(read_labels(_SOURCE_CLASSES.value).values())
    config = _SOURCE_CONFIG.value and configs.CONFIGS[_SOURCE_CONFIG.value]
    return {
        "path": _WEIGHTS.value,
        "source": _SOURCE.value,
        "source_labels": names,
        "source_config": config,
    }


if __name__ == "__main__":
    app.run(main)
