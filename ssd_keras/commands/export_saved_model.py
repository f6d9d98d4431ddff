"""Exports a .keras file as a SavedModel for servers.

    ssd-keras export saved_model --model=runs/voc/best.keras --out=detector

The SavedModel has four signatures: `serving_default` takes uint8 images of the network's size,
`any_size` uint8 images of any size, `resized` float32 images of the network's size, and `encoded`
JPEG, PNG, BMP or GIF bytes. All return
`detection_boxes`, `detection_scores`, `detection_classes` and `num_detections`. The command
compares the SavedModel with the Keras model on three synthetic images. If they differ, it writes
nothing.
"""

from absl import flags

from ssd_keras.class_names import read_labels
from ssd_keras.detections import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.export.tolerances import SAVED_MODEL_PRECISIONS
from ssd_keras.images import MAX_PIXELS
from ssd_keras.model import load_model

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to create.", required=True)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with one class name per line, or voc, coco, ilsvrc_det. Default: the model's labels.",
)
_SCORE = flags.DEFINE_float(
    "score_threshold", SCORE_THRESHOLD, "Detections must have a score above this value."
)
_IOU = flags.DEFINE_float(
    "iou_threshold",
    IOU_THRESHOLD,
    "A box is suppressed if its IoU with a better box of its class is above this value.",
)
_MAX = flags.DEFINE_integer(
    "max_detections", MAX_DETECTIONS, "Maximum number of detections per image."
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels",
    MAX_PIXELS,
    "Limit for the height times the width of an encoded image. The header is read first; larger "
    "images are not decoded.",
    lower_bound=1,
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(SAVED_MODEL_PRECISIONS),
    "bfloat16 takes about half the time and space, on processors with instructions for it.",
)
_FREEZE = flags.DEFINE_bool("freeze", False, "Store the weights as constants of the graph.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier export in the folder.")


def main(words: list[str]) -> None:
    """Exports the model and prints how well the export agrees with it."""
    model = load_model(_MODEL.value)
    agreement = export_saved_model(
        model,
        _OUT.value,
        labels=list(read_labels(_LABELS.value).values()) if _LABELS.value else None,
        score_threshold=_SCORE.value,
        iou_threshold=_IOU.value,
        max_detections=_MAX.value,
        freeze=_FREEZE.value,
        precision=_PRECISION.value,
        max_pixels=_MAX_PIXELS.value,
        overwrite=_OVERWRITE.value,
    )
    print(f"{_OUT.value} compared with {_MODEL.value}: {agreement}")
