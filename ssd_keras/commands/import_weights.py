r"""Converts weights of another project to a model of this package.

    ssd-keras import-weights --weights=ssd300_vgg16_coco-b556d3b4.pth --config=SSD300_COCO \
        --labels=coco --out=ssd300_coco.keras

Prints a report: which tensors and layers were loaded, sliced by class, freshly initialized or not
used.
"""

import os

from absl import flags

from ssd_keras.class_names import read_labels
from ssd_keras.config import CONFIGS
from ssd_keras.files import atomic
from ssd_keras.model import ssd_vgg16
from ssd_keras.weights.load import load_weights
from ssd_keras.weights.projects import PROJECTS

_WEIGHTS = flags.DEFINE_string("weights", None, "Weights file of the project.", required=True)
_PROJECT = flags.DEFINE_enum(
    "weights_project",
    None,
    [project.name for project in PROJECTS],
    "Project whose naming the weights file follows. Default: detected.",
)
_CONFIG = flags.DEFINE_enum(
    "config", None, list(CONFIGS), "Input size and tiling of the model.", required=True
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the class names of the model, one a line; or voc, coco, ilsvrc_det.",
    required=True,
)
_WEIGHTS_LABELS = flags.DEFINE_string(
    "weights_labels",
    None,
    "File with the class names of the weights file, one a line, if they are not VOC's or COCO's.",
)
_WEIGHTS_CONFIG = flags.DEFINE_enum(
    "weights_config", None, list(CONFIGS), "Tiling of the weights file, if it is not the usual one."
)
_OUT = flags.DEFINE_string("out", None, "Model to write (.keras).", required=True)


def main(words: list[str]) -> None:
    """Builds the model, loads the weights and writes the model."""
    del words
    out = _OUT.value
    if not out.endswith(".keras"):
        raise ValueError(f"out (={out}) must end in .keras")
    if os.path.exists(out):
        raise ValueError(f"out (={out}) exists already: remove it or name another file")
    labels = _names(_LABELS.value)
    model = ssd_vgg16(CONFIGS[_CONFIG.value], len(labels), labels=labels)
    report = load_weights(
        model,
        _WEIGHTS.value,
        weights_project=_PROJECT.value,
        weights_labels=_WEIGHTS_LABELS.value and _names(_WEIGHTS_LABELS.value),
        weights_config=_WEIGHTS_CONFIG.value and CONFIGS[_WEIGHTS_CONFIG.value],
    )
    print(report)
    with atomic(out) as temporary:
        model.save(temporary)
    print(f"wrote {out}")


def _names(path: str) -> tuple[str, ...]:
    return tuple(read_labels(path).values())
