"""Command: turns the weights of another project into a model of ours.

    python -m ssd_keras.import_weights --weights ssd300_vgg16_coco-b556d3b4.pth \
        --config SSD300_COCO --classes data/labels/coco.txt --out ssd300_coco.keras

Prints what was loaded, sliced by class, left fresh and not used.
"""

import os

from absl import app, flags

from ssd_keras.commands import command
from ssd_keras.config import CONFIGS
from ssd_keras.files import atomic
from ssd_keras.model import ssd_vgg16
from ssd_keras.sources import read_labels
from ssd_keras.weight_sources import SOURCES
from ssd_keras.weights import load_weights

_WEIGHTS = flags.DEFINE_string("weights", None, "Weights file of the project.", required=True)
_SOURCE = flags.DEFINE_enum(
    "source", None, [source.name for source in SOURCES], "The project; found out by default."
)
_CONFIG = flags.DEFINE_enum("config", None, list(CONFIGS), "Tiling of the model.", required=True)
_CLASSES = flags.DEFINE_string(
    "classes", None, "Text file of the model's class names, one a line.", required=True
)
_SOURCE_CLASSES = flags.DEFINE_string(
    "source_classes", None, "The same for the weights, if they are not VOC's or COCO's."
)
_SOURCE_CONFIG = flags.DEFINE_enum(
    "source_config", None, list(CONFIGS), "Tiling of the weights, if it is not the usual one."
)
_OUT = flags.DEFINE_string("out", None, "Model to write (.keras).", required=True)


@command
def main(argv: list[str]) -> None:
    """Builds the model, loads the weights and writes the model."""
    out = _OUT.value
    if not out.endswith(".keras"):
        raise ValueError(f"out (={out}) must end in .keras")
    if os.path.exists(out):
        raise ValueError(f"out (={out}) exists already: remove it or name another file")
    labels = _read_names(_CLASSES.value)
    model = ssd_vgg16(CONFIGS[_CONFIG.value], len(labels), labels=labels)
    report = load_weights(
        model,
        _WEIGHTS.value,
        _SOURCE.value,
        source_labels=_SOURCE_CLASSES.value and _read_names(_SOURCE_CLASSES.value),
        source_config=_SOURCE_CONFIG.value and CONFIGS[_SOURCE_CONFIG.value],
    )
    print(report)
    with atomic(out) as temporary:
        model.save(temporary)
    print(f"wrote {out}")


def _read_names(path: str) -> tuple[str, ...]:
    return tuple(read_labels(path).values())


if __name__ == "__main__":
    app.run(main)
