r"""Converts the weights of another project to a .keras file.

    ssd-keras import-weights --weights=ssd300_vgg16_coco-b556d3b4.pth --config=SSD300_COCO \
        --labels=coco --out=ssd300_coco.keras

Prints a report. For every tensor in the file it shows the use. For every layer of the model it
shows whether the weights were loaded, loaded for some classes only, or freshly initialized.
"""

import os

from absl import flags

from ssd_keras.class_names import read_labels
from ssd_keras.config_files import CONFIG_HELP, as_config
from ssd_keras.files import atomic
from ssd_keras.model import ssd_vgg16
from ssd_keras.weights.load import load_weights
from ssd_keras.weights.projects import PROJECTS

_WEIGHTS = flags.DEFINE_string(
    "weights",
    None,
    "Weights file: .keras, .npz, .h5, .pth, .safetensors or .caffemodel.",
    required=True,
)
_PROJECT = flags.DEFINE_enum(
    "weights_project",
    None,
    [project.name for project in PROJECTS],
    "Project whose tensor names the weights file has. Default: detected from the names.",
)
_CONFIG = flags.DEFINE_string("config", None, CONFIG_HELP, required=True)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the class names of the model, one per line, or voc, coco, ilsvrc_det.",
    required=True,
)
_WEIGHTS_LABELS = flags.DEFINE_string(
    "weights_labels",
    None,
    "File with the class names of the weights, one per line, if they are not VOC's or COCO's.",
)
_WEIGHTS_CONFIG = flags.DEFINE_string(
    "weights_config",
    None,
    "Tiling of the weights file, as for --config. Default: read from the file, or assumed from its "
    "outputs.",
)
_OUT = flags.DEFINE_string("out", None, "The .keras file to write.", required=True)


def main(words: list[str]) -> None:
    """Builds the model, loads the weights, prints the report and saves the model."""
    del words
    out = _OUT.value
    if not out.endswith(".keras"):
        raise ValueError(f"out (={out}) must end in .keras")
    if os.path.exists(out):
        raise ValueError(f"out (={out}) already exists: remove it or name another file")
    labels = _names(_LABELS.value)
    model = ssd_vgg16(as_config(_CONFIG.value), len(labels), labels=labels)
    report = load_weights(
        model,
        _WEIGHTS.value,
        weights_project=_PROJECT.value,
        weights_labels=_WEIGHTS_LABELS.value and _names(_WEIGHTS_LABELS.value),
        weights_config=_WEIGHTS_CONFIG.value and as_config(_WEIGHTS_CONFIG.value),
    )
    print(report)
    with atomic(out) as temporary:
        model.save(temporary)
    print(f"wrote {out}")


def _names(path: str) -> tuple[str, ...]:
    return tuple(read_labels(path).values())
