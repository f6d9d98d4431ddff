r"""Trains SSD on record sets, or resumes a run.

    ssd-keras train --records=records/voc0712 --val_records=records/voc07test \
        --weights=imagenet --run_dir=runs/voc

The defaults are the original's recipe. The same command resumes an interrupted run at its last
checkpoint. The run folder holds run.json, weights.txt (what was loaded), last.keras (the
checkpoint), best.keras, history.csv, history.png and tensorboard/.
"""

import importlib.util
import os
import sys
from typing import Any

import keras
import tensorflow as tf
from absl import flags

from ssd_keras.augmentation.ops import AUGMENTATIONS
from ssd_keras.class_names import read_labels
from ssd_keras.commands.recipe_flags import define_flags, from_flags
from ssd_keras.config_files import CONFIG_HELP, as_config
from ssd_keras.data.card import read_card
from ssd_keras.model import ssd_vgg16
from ssd_keras.training.callbacks import BEST, HISTORY
from ssd_keras.training.recipe import Recipe
from ssd_keras.training.run import train
from ssd_keras.weights.projects import PROJECTS

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
_RECORDS = flags.DEFINE_list("records", None, "Record sets to train on.", required=True)
_VAL = flags.DEFINE_string("val_records", None, "Record set to measure VOC AP on.")
_CONFIG = flags.DEFINE_string("config", "SSD300_VOC", CONFIG_HELP)
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Initial weights: 'imagenet', or a file of a VGG16 or a whole SSD, of this package or another "
    "project (.keras, .npz, .h5, .pth, .safetensors, .caffemodel). Default: random.",
)
_PROJECT = flags.DEFINE_enum(
    "weights_project",
    None,
    [project.name for project in PROJECTS],
    "Project whose naming the weights file follows. Default: detected.",
)
_WEIGHTS_LABELS = flags.DEFINE_string(
    "weights_labels",
    None,
    "File with the class names of the weights file, one a line, if they are not VOC's or COCO's.",
)
_WEIGHTS_CONFIG = flags.DEFINE_string(
    "weights_config", None, "Tiling of the weights file, if it is not the usual one; as --config."
)
_LABELS = flags.DEFINE_string(
    "labels", None, "File with one class name a line; must agree with the records. Default: theirs."
)
_WIDTH = flags.DEFINE_float("width", 1.0, "Factor on the filters of every layer but the heads.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "Keras dtype policy: mixed_float16 for GPUs, mixed_bfloat16 for newer CPUs and TPUs.",
)
_MIRRORED = flags.DEFINE_bool("mirrored", False, "Train on all GPUs of this machine.")
_SERVICE = flags.DEFINE_string(
    "service", None, "Address (grpc://host:port) of a tf.data service that makes the batches."
)
_LIMIT = flags.DEFINE_float("gradient_limit", 1e6, "Stop if the gradient norm is above it.")
define_flags(Recipe, {"augmentation": tuple(AUGMENTATIONS), "optimizer": ("sgd", "adam")})


def interrupted() -> str:
    """What is left after Ctrl-C."""
    return (
        f"the last checkpoint is in {_RUN_DIR.value}, if the run had reached one; the same command "
        "resumes the run"
    )


def main(words: list[str]) -> None:
    """Builds the model and trains it."""
    del words
    recipe = from_flags(Recipe)
    labels = read_card(_RECORDS.value[0]).labels
    if _LABELS.value is not None:
        labels = tuple(read_labels(_LABELS.value).values())
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(_PRECISION.value)
    strategy = tf.distribute.MirroredStrategy() if _MIRRORED.value else tf.distribute.get_strategy()
    with strategy.scope():
        model = ssd_vgg16(as_config(_CONFIG.value), len(labels), width=_WIDTH.value, labels=labels)
        train(
            model,
            recipe,
            _RUN_DIR.value,
            _RECORDS.value,
            val_records=_VAL.value,
            gradient_limit=_LIMIT.value,
            service=_SERVICE.value,
            **_weights(),
        )
    _plot()
    print(f"trained {recipe.iterations} iterations: {os.path.join(_RUN_DIR.value, BEST)}")


def _plot() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("history.png needs matplotlib: pip install 'ssd-keras[plots]'", file=sys.stderr)
        return
    from ssd_keras.training.plots import plot_history

    history = os.path.join(_RUN_DIR.value, HISTORY)
    plot_history(history, os.path.join(_RUN_DIR.value, "history.png"))


def _weights() -> dict[str, Any]:
    """The arguments that say where the initial weights come from."""
    if _WEIGHTS.value is None:
        return {}
    names = _WEIGHTS_LABELS.value and tuple(read_labels(_WEIGHTS_LABELS.value).values())
    config = _WEIGHTS_CONFIG.value and as_config(_WEIGHTS_CONFIG.value)
    return {
        "weights": _WEIGHTS.value,
        "weights_project": _PROJECT.value,
        "weights_labels": names,
        "weights_config": config,
    }
