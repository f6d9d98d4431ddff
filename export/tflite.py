"""Command: a Keras model file -> a TFLite file for phones, edge devices or browsers.

    python export/tflite.py --model runs/voc/best.keras --out detector.tflite \
        --kind detections --precision int8 --calibration_records records/voc0712

See export/README.md for the kinds and precisions.
"""

from absl import app, flags, logging

from ssd_keras.commands import command
from ssd_keras.exporting import load_model
from ssd_keras.pipeline import eval_dataset
from ssd_keras.tflite import KINDS, PRECISIONS, export_tflite

_MODEL = flags.DEFINE_string("model", None, "The .keras file.", required=True)
_OUT = flags.DEFINE_string("out", None, "The .tflite file to write.", required=True)
_KIND = flags.DEFINE_enum("kind", "detections", KINDS, "What the file gives.")
_PRECISION = flags.DEFINE_enum("precision", "float32", PRECISIONS, "How numbers are stored.")
_RECORDS = flags.DEFINE_list(
    "calibration_records", None, "Record sets whose first 100 images int8 is calibrated with."
)
_SCORE = flags.DEFINE_float("score_threshold", 0.01, "Scores must be above it.")
_IOU = flags.DEFINE_float("iou_threshold", 0.45, "Overlap above which the worse box goes.")
_MAX = flags.DEFINE_integer("max_detections", 200, "Detections kept of an image.")


@command
def main(argv: list[str]) -> None:
    """Exports one model."""
    logging.set_verbosity(logging.WARNING)  # TensorFlow tells every file it writes
    model = load_model(_MODEL.value)
    config = model.get_layer("predictions").ssd_config
    agreement = export_tflite(
        model,
        config,
        _OUT.value,
        kind=_KIND.value,
        precision=_PRECISION.value,
        calibration=eval_dataset(_RECORDS.value, config, 1) if _RECORDS.value else None,
        score_threshold=_SCORE.value,
        iou_threshold=_IOU.value,
        max_detections=_MAX.value,
    )
    print(f"{_OUT.value} agrees with {_MODEL.value}: {agreement}")


if __name__ == "__main__":
    app.run(main)
