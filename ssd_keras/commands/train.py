r"""Trains SSD on record sets, or resumes a run.

    ssd-keras train --records=records/mine --val_records=records/mine_test
    ssd-keras train --recipe=ssd300_voc0712_expand --data=records

`ssd-keras recipes` lists the recipes. Most flags replace one value of the recipe. The same command
resumes an interrupted run at its last checkpoint. With more --iterations it continues a finished
run. The run folder contains run.json (the recipe with all values), weights.txt (the loaded
weights), last.keras (the checkpoint), previous.keras (the previous checkpoint), best.keras,
history.csv, history.png and tensorboard/.
"""

import difflib
import importlib.util
import os
import sys
from typing import Any

import keras
from absl import flags

from ssd_keras.class_names import read_labels
from ssd_keras.commands.recipe_flags import define_flags, from_flags
from ssd_keras.config_files import CONFIG_HELP, as_config
from ssd_keras.data.card import read_card
from ssd_keras.model import ssd_vgg16
from ssd_keras.training.checkpoint import BEST, HISTORY
from ssd_keras.training.devices import STRATEGIES, make_strategy, worker
from ssd_keras.training.interruption import Interrupted
from ssd_keras.training.recipe import CHOICES, Recipe
from ssd_keras.training.recipes import EXPERIMENTS, Experiment, record_paths
from ssd_keras.training.run import train
from ssd_keras.weights.projects import PROJECTS

_NAME = flags.DEFINE_string("recipe", "finetune", "Name of the recipe; see `ssd-keras recipes`.")
_DATA = flags.DEFINE_string("data", None, "Folder of the record sets that the recipe names.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run. Default: runs/RECIPE.")
_RECORDS = flags.DEFINE_list("records", None, "Record sets to train on. Default: the recipe's.")
_VAL = flags.DEFINE_string(
    "val_records", None, "Record set to evaluate on, or 'none'. Default: the recipe's, if any."
)
_CONFIG = flags.DEFINE_string("config", None, f"{CONFIG_HELP} Default: the recipe's.")
_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Initial weights: 'imagenet', 'random', or a file of a VGG16 or a whole SSD, of this package "
    "or another project (.keras, .npz, .h5, .pth, .safetensors, .caffemodel). Default: the "
    "recipe's.",
)
_PROJECT = flags.DEFINE_enum(
    "weights_project",
    None,
    [project.name for project in PROJECTS],
    "Project whose tensor names the weights file has. Default: detected from the names.",
)
_WEIGHTS_LABELS = flags.DEFINE_string(
    "weights_labels",
    None,
    "File with the class names of the weights file, one per line, if they are not VOC's or COCO's.",
)
_WEIGHTS_CONFIG = flags.DEFINE_string(
    "weights_config",
    None,
    "Tiling of the weights file, as for --config. Default: read from the file, or assumed from its "
    "outputs.",
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with one class name per line. The names must be those of the records, in the same order. "
    "Default: the names of the records.",
)
_WIDTH = flags.DEFINE_float(
    "width",
    None,
    "Factor on the number of filters of all layers except the heads. Default: the recipe's.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_float16", "mixed_bfloat16"],
    "Keras dtype policy: mixed_float16 for GPUs, mixed_bfloat16 for newer CPUs and TPUs.",
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "none",
    STRATEGIES,
    "Devices to train on: one (none), all of this machine (mirrored), or those of all workers in "
    "TF_CONFIG (multiworker).",
)
_JIT = flags.DEFINE_enum(
    "jit_compile", "auto", ["auto", "on", "off"], "Whether to compile the training step with XLA."
)
_SERVICE = flags.DEFINE_string(
    "service", None, "Address (grpc://host:port) of a tf.data service that makes the batches."
)
_LIMIT = flags.DEFINE_float(
    "gradient_limit", 1e6, "Stop the run if the norm of the gradients is above this value."
)
define_flags(Recipe, CHOICES)


def interrupted() -> str:
    """Returns the message for a Ctrl-C before the first step or after the last step."""
    return f"the last checkpoint, if any, is in {_run_dir()}; the same command resumes the run"


def main(words: list[str]) -> int | None:
    """Builds the model, trains it and plots the training curves."""
    del words
    experiment = _experiment()
    recipe = from_flags(experiment.recipe)
    records, val_records = _record_sets(experiment)
    labels = read_card(records[0]).labels
    if _LABELS.value is not None:
        labels = tuple(read_labels(_LABELS.value).values())
    config = as_config(_CONFIG.value) if _CONFIG.value else experiment.config
    width = experiment.width if _WIDTH.value is None else _WIDTH.value
    # Before any TensorFlow operation: several workers must join their cluster first.
    strategy = make_strategy(_STRATEGY.value)
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy(_PRECISION.value)
    with strategy.scope():
        model = ssd_vgg16(config, len(labels), width=width, labels=labels)
    chief = worker(strategy)[0] == 0
    try:
        train(
            model,
            recipe,
            _run_dir(),
            records,
            val_records=val_records,
            gradient_limit=_LIMIT.value,
            service=_SERVICE.value,
            jit_compile="auto" if _JIT.value == "auto" else _JIT.value == "on",
            name=_NAME.value,
            **_weights(experiment),
        )
    except (Interrupted, FloatingPointError) as stop:
        if chief:
            _plot()
        if not isinstance(stop, Interrupted):
            raise
        print(f"interrupted: {stop}", file=sys.stderr)
        return stop.exit_code
    if chief:
        _plot()
    print(f"the run is finished: {os.path.join(_run_dir(), BEST)}")
    return None


def _experiment() -> Experiment:
    if _NAME.value not in EXPERIMENTS:
        close = difflib.get_close_matches(_NAME.value, EXPERIMENTS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"--recipe (={_NAME.value}): {hint}`ssd-keras recipes` lists them")
    return EXPERIMENTS[_NAME.value]


def _record_sets(experiment: Experiment) -> tuple[list[str], str | None]:
    """Returns the record sets to train on, and the record set to evaluate on or None."""
    wanted = () if _RECORDS.value else experiment.records
    measured = () if _VAL.value or not experiment.val_records else (experiment.val_records,)
    if _RECORDS.value and not _DATA.value:
        measured = ()  # a model of the user's data is not evaluated on the recipe's data
    if not _RECORDS.value and not experiment.records:
        raise ValueError(f"--records is missing: the recipe {_NAME.value} is for your own data")
    if wanted + measured and not _DATA.value:
        raise ValueError(
            f"--data is missing: the recipe {_NAME.value} needs the folder with the record sets "
            f"{', '.join(wanted + measured)}"
        )
    records = _RECORDS.value or record_paths(wanted, _DATA.value)
    val_records = _VAL.value or next(iter(record_paths(measured, _DATA.value or "")), None)
    return records, None if val_records == "none" else val_records


def _run_dir() -> str:
    return _RUN_DIR.value or os.path.join("runs", _NAME.value)


def _plot() -> None:
    history = os.path.join(_run_dir(), HISTORY)
    if not os.path.exists(history):
        return
    if importlib.util.find_spec("matplotlib") is None:
        print("history.png needs matplotlib: pip install 'ssd-keras[plots]'", file=sys.stderr)
        return
    from ssd_keras.training.plots import plot_history

    plot_history(history, os.path.join(_run_dir(), "history.png"))


def _weights(experiment: Experiment) -> dict[str, Any]:
    """Returns the arguments of `train` for the initial weights."""
    weights = _WEIGHTS.value or experiment.weights
    if weights == "random":
        return {}
    if not _WEIGHTS.value and weights != "imagenet":
        weights = os.path.join(_DATA.value or "", weights)
    names = _WEIGHTS_LABELS.value and tuple(read_labels(_WEIGHTS_LABELS.value).values())
    config = _WEIGHTS_CONFIG.value and as_config(_WEIGHTS_CONFIG.value)
    return {
        "weights": weights,
        "weights_project": _PROJECT.value,
        "weights_labels": names,
        "weights_config": config,
    }
