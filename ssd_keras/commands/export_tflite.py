r"""Exports a .keras file as TFLite files for phones, edge devices and browsers.

    ssd-keras export tflite --model=runs/voc/best.keras --out=detector.tflite \
        --kind=detections --precision=int8 --calibration_records=records/voc0712

With several precisions, the precision is appended to each file name: --precision=float32,int8
writes detector_float32.tflite and detector_int8.tflite. The command compares each file with the
Keras model on three synthetic images. A file that differs is not written.
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
_KIND = flags.DEFINE_enum(
    "kind",
    "detections",
    KINDS,
    "Outputs of the file: all boxes and scores (raw), detections after suppression (detections), "
    "or detections in the format of MediaPipe Tasks (mediapipe).",
)
_PRECISIONS = flags.DEFINE_list(
    "precision",
    ["float32"],
    f"One or more of {', '.join(TFLITE_PRECISIONS)}: float32; float16 weights; 8-bit weights "
    "(dynamic); 8-bit weights and activations (int8).",
)
_RECORDS = flags.DEFINE_list(
    "calibration_records", None, "Record sets whose first 100 images calibrate int8."
)
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


def main(words: list[str]) -> None:
    """Exports the model in every precision and prints how well each file agrees with it."""
    out = Path(_OUT.value)
    several = len(_PRECISIONS.value) > 1
    paths = {p: out.with_stem(f"{out.stem}_{p}") if several else out for p in _PRECISIONS.value}
    if not paths:
        raise ValueError(
            f"--precision is empty: name one or more of {', '.join(TFLITE_PRECISIONS)}"
        )
    if _RECORDS.value and "int8" not in paths:
        raise ValueError(
            f"--calibration_records needs --precision=int8, but the precision is "
            f"{','.join(_PRECISIONS.value)}"
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
        print(f"{path} compared with {_MODEL.value}: {agreement}", flush=True)
