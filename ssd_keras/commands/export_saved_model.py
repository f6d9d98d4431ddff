"""Writes a SavedModel for servers from a Keras model file.

    ssd-keras export saved_model --model=runs/voc/best.keras --out=detector

export/README.md of the repository describes its signatures.
"""

from absl import flags

from ssd_keras.class_names import read_labels
from ssd_keras.detections import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.model import load_model

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to make.", required=True)
_LABELS = flags.DEFINE_string(
    "labels", None, "File with one class name a line, if the model carries none."
)
_SCORE = flags.DEFINE_float("score_threshold", SCORE_THRESHOLD, "Scores must be above it.")
_IOU = flags.DEFINE_float("iou_threshold", IOU_THRESHOLD, "Overlap above which the worse box goes.")
_MAX = flags.DEFINE_integer("max_detections", MAX_DETECTIONS, "Detections kept of an image.")
_FREEZE = flags.DEFINE_bool("freeze", False, "Store the weights as constants of the graph.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier export.")


def main(words: list[str]) -> None:
    """Exports one model."""
    model = load_model(_MODEL.value)
    agreement = export_saved_model(
        model,
        _OUT.value,
        labels=list(read_labels(_LABELS.value).values()) if _LABELS.value else None,
        score_threshold=_SCORE.value,
        iou_threshold=_IOU.value,
        max_detections=_MAX.value,
        freeze=_FREEZE.value,
        overwrite=_OVERWRITE.value,
    )
    print(f"{_OUT.value} beside {_MODEL.value}: {agreement}")
