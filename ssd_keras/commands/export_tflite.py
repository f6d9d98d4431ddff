r"""Writes TFLite files for phones, edge devices and browsers from a Keras model file.

    ssd-keras export tflite --model=runs/voc/best.keras --out=detector.tflite \
        --kind=detections --precision=int8 --calibration_records=records/voc0712

export/README.md of the repository describes the kinds and precisions. With several precisions the
name of each file ends with its precision: --precision=float32,int8 writes detector_float32.tflite
and detector_int8.tflite.
"""

from pathlib import Path

from absl import flags

from ssd_keras.class_names import read_labels
from ssd_keras.data.pipeline import eval_dataset
from ssd_keras.detections import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from ssd_keras.export.tflite.converter import check_options, export_tflite
from ssd_keras.export.tflite.graphs import KINDS
from ssd_keras.export.tolerances import TFLITE_PRECISIONS
from ssd_keras.model import load_model

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "The .tflite file to write.", required=True)
_KIND = flags.DEFINE_enum("kind", "detections", KINDS, "What the file gives.")
_PRECISIONS = flags.DEFINE_list(
    "precision",
    ["float32"],
    f"How numbers are stored: one or more of {', '.join(TFLITE_PRECISIONS)}.",
)
_RECORDS = flags.DEFINE_list(
    "calibration_records", None, "Record sets whose first 100 images int8 is calibrated with."
)
_LABELS = flags.DEFINE_string(
    "labels", None, "File with one class name a line, if the model carries none."
)
_SCORE = flags.DEFINE_float("score_threshold", SCORE_THRESHOLD, "Scores must be above it.")
_IOU = flags.DEFINE_float("iou_threshold", IOU_THRESHOLD, "Overlap above which the worse box goes.")
_MAX = flags.DEFINE_integer("max_detections", MAX_DETECTIONS, "Detections kept of an image.")


def main(words: list[str]) -> None:
    """Exports one model."""
    out = Path(_OUT.value)
    several = len(_PRECISIONS.value) > 1
    paths = {p: out.with_stem(f"{out.stem}_{p}") if several else out for p in _PRECISIONS.value}
    if not paths:
        raise ValueError(
            f"--precision is empty, but must name some of {', '.join(TFLITE_PRECISIONS)}"
        )
    if _RECORDS.value and "int8" not in paths:
        raise ValueError(
            f"--calibration_records is for --precision int8, not for {_PRECISIONS.value}"
        )
    for precision, path in paths.items():
        check_options(path, _KIND.value, precision, precision == "int8" and bool(_RECORDS.value))
    model = load_model(_MODEL.value)
    config = model.ssd_config
    calibration = eval_dataset(_RECORDS.value, config, 1) if _RECORDS.value else None
    for precision, path in paths.items():
        agreement = export_tflite(
            model,
            path,
            kind=_KIND.value,
            precision=precision,
            calibration=calibration if precision == "int8" else None,
            labels=list(read_labels(_LABELS.value).values()) if _LABELS.value else None,
            score_threshold=_SCORE.value,
            iou_threshold=_IOU.value,
            max_detections=_MAX.value,
        )
        print(f"{path} beside {_MODEL.value}: {agreement}", flush=True)
