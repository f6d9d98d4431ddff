"""Command: a Keras model file -> TFLite files for phones, edge devices or browsers.

    python export/tflite.py --model runs/voc/best.keras --out detector.tflite \
        --kind detections --precision int8 --calibration_records records/voc0712

See export/README.md for the kinds and precisions. With several precisions, each has a file with
its name at the end: --precision float32,int8 writes detector_float32.tflite, detector_int8.tflite.
"""

from pathlib import Path

from absl import app, flags, logging

from ssd_keras.commands import command
from ssd_keras.detections import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD
from ssd_keras.model import load_model
from ssd_keras.pipeline import eval_dataset
from ssd_keras.sources import read_labels
from ssd_keras.tflite import KINDS, PRECISIONS, check_options, export_tflite

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "The .tflite file to write.", required=True)
_KIND = flags.DEFINE_enum("kind", "detections", KINDS, "What the file gives.")
_PRECISIONS = flags.DEFINE_list(
    "precision", ["float32"], f"How numbers are stored: one or more of {', '.join(PRECISIONS)}."
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


@command
def main(argv: list[str]) -> None:
    """Exports one model."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow tells every file it writes
    out = Path(_OUT.value)
    several = len(_PRECISIONS.value) > 1
    paths = {p: out.with_stem(f"{out.stem}_{p}") if several else out for p in _PRECISIONS.value}
    if not paths:
        raise ValueError(f"--precision is empty, but must name some of {', '.join(PRECISIONS)}")
    if _RECORDS.value and "int8" not in paths:
        raise ValueError(
            f"--calibration_records is for --precision int8, not for {_PRECISIONS.value}"
        )
    for precision, path in paths.items():
        check_options(path, _KIND.value, precision, precision == "int8" and bool(_RECORDS.value))
    model = load_model(_MODEL.value)
    config = model.get_layer("predictions").ssd_config
    calibration = eval_dataset(_RECORDS.value, config, 1) if _RECORDS.value else None
    for precision, path in paths.items():
        agreement = export_tflite(
            model,
            config,
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


if __name__ == "__main__":
    app.run(main)
