r"""Writes a report on one or more detectors: an HTML page with figures, and PNG files.

    ssd-keras report --models=runs/voc/best.keras,detector_int8.tflite \
        --records=records/voc07test --out=reports/voc

The page shows average precision, precision-recall curves, the kinds of errors (section 3.1 of the
paper), sensitivity to size and aspect ratio, recall by feature map, calibration, confusion, the
worst errors as pictures and the tiling of default boxes. It needs no internet connection.
report.json has the same numbers.
"""

from absl import flags

from ssd_keras.data.card import read_card
from ssd_keras.evaluation.analysis import analyze
from ssd_keras.evaluation.errors import similar_classes
from ssd_keras.evaluation.inputs import unzipped
from ssd_keras.evaluation.matches import match_table
from ssd_keras.evaluation.report import Run, write_html_report
from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.record_sets import stream_records

_MODELS = flags.DEFINE_list(
    "models", None, "Keras files, SavedModel folders and TFLite files to compare.", required=True
)
_NAMES = flags.DEFINE_list("names", None, "Names of the models in the report; default: the paths.")
_RECORDS = flags.DEFINE_string("records", None, "Folder of the record set.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to.", required=True)
_SIMILAR = flags.DEFINE_string(
    "similar",
    None,
    "Text file with groups of similar classes, one group of comma-separated names on each line. "
    "Default: the groups of the VOC classes.",
)
_SCORE = flags.DEFINE_float(
    "score_threshold", 0.5, "Minimum score for the confusion matrix and recall by feature map."
)
_IOU = flags.DEFINE_float("iou_threshold", 0.5, "Minimum IoU of a true positive.")
_EXAMPLES = flags.DEFINE_integer(
    "examples", 12, "Number of misses and of false positives to show.", lower_bound=0
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per batch.")


def main(words: list[str]) -> None:
    """Detects with each model, analyzes the detections and writes the report."""
    del words
    names = _NAMES.value or _MODELS.value
    if len(names) != len(_MODELS.value):
        raise ValueError(f"--names has {len(names)} names for {len(_MODELS.value)} models")
    card = read_card(_RECORDS.value)
    similar = similar_classes(card.labels, _SIMILAR.value)
    runs = []
    for name, path in zip(names, _MODELS.value, strict=True):
        detector = load_detector(path)
        pairs = unzipped(stream_records(detector, _RECORDS.value, _BATCH_SIZE.value))
        analysis = analyze(
            name,
            match_table(*pairs, card.labels, similar),
            detector.config,
            score_threshold=_SCORE.value,
            iou_threshold=_IOU.value,
            examples=_EXAMPLES.value,
        )
        runs.append(Run(analysis, detector))
        print(f"{name}: mean area AP {analysis.result.mean_ap_area:.4f}")
    print(write_html_report(runs, card, _RECORDS.value, _OUT.value))
