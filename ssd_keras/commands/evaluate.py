"""Computes the average precision (AP) of a detector on a record set.

    ssd-keras evaluate --model=runs/voc/best.keras --records=records/voc07test

Prints the AP of each class, the mean AP, and the speed in images per second from encoded images to
detections. --out writes the same numbers as JSON. --metric=coco computes the twelve COCO metrics
with pycocotools; with --annotations they respect crowd regions and mask areas. --results writes the
detections in the COCO results format, and --voc_results in the format of the VOC server.
"""

import itertools
import json

from absl import flags

from ssd_keras.data.card import read_card
from ssd_keras.data.records import read_samples
from ssd_keras.evaluation.coco import COCOResult, coco_average_precision, coco_results
from ssd_keras.evaluation.inputs import unzipped
from ssd_keras.evaluation.results import with_coco_results, with_voc_results
from ssd_keras.evaluation.voc import VOCResult, voc_average_precision
from ssd_keras.files import atomic
from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.record_sets import Stopwatch, stream_records

_MODEL = flags.DEFINE_string(
    "model", None, "A .keras file, a SavedModel folder or a .tflite file.", required=True
)
_RECORDS = flags.DEFINE_string("records", None, "Folder of the record set.", required=True)
_METRIC = flags.DEFINE_enum("metric", "voc", ["voc", "coco"], "Definition of average precision.")
_IOU = flags.DEFINE_float("iou_threshold", 0.5, "Minimum IoU of a true positive (voc only).")
_ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "COCO's instances_*.json with the ground truth (coco only)."
)
_OUT = flags.DEFINE_string("out", None, "JSON file for the metrics.")
_RESULTS = flags.DEFINE_string(
    "results", None, "JSON file for the detections, in the COCO results format."
)
_VOC_RESULTS = flags.DEFINE_string(
    "voc_results", None, "Folder for the detections as VOC's comp4_det_test_CLASS.txt."
)
_PLOT = flags.DEFINE_string("plot", None, "Image file for the precision-recall curves (voc only).")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images per batch.")


def main(words: list[str]) -> None:
    """Detects on all records, computes the metrics, and prints and writes them."""
    for flag, metric in ((_PLOT, "voc"), (_IOU, "voc"), (_ANNOTATIONS, "coco")):
        if flag.present and _METRIC.value != metric:
            raise ValueError(f"--{flag.name} (={flag.value}) needs --metric={metric}")
    if _PLOT.value:
        from ssd_keras.evaluation.plots import check_format

        check_format(_PLOT.value)
    card = read_card(_RECORDS.value)
    detector = load_detector(_MODEL.value)
    for sample in itertools.islice(read_samples(_RECORDS.value), 1):
        detector.detect([sample.image])  # builds the graph before the time is measured
    stopwatch = Stopwatch()
    pairs = stream_records(detector, _RECORDS.value, _BATCH_SIZE.value, stopwatch)
    ids = card.category_ids or tuple(range(1, 1 + len(card.labels)))
    if _VOC_RESULTS.value:
        pairs = with_voc_results(pairs, _VOC_RESULTS.value, card.labels)
    if _RESULTS.value and not _ANNOTATIONS.value:
        pairs = with_coco_results(pairs, _RESULTS.value, ids)
    found, truth = unzipped(pairs)
    result: VOCResult | COCOResult
    if _METRIC.value == "coco":
        detections, samples = (
            list(items) for items in zip(*zip(found, truth, strict=True), strict=True)
        )
        result = coco_average_precision(
            detections,
            samples,
            card.labels,
            annotations=_ANNOTATIONS.value,
            category_ids=card.category_ids,
        )
        if _RESULTS.value and _ANNOTATIONS.value:
            items = coco_results(detections, samples, ids, _ANNOTATIONS.value)
            with atomic(_RESULTS.value) as path:
                path.write_text(json.dumps(items))
    else:
        result = voc_average_precision(found, truth, card.labels, iou_threshold=_IOU.value)
        if _PLOT.value:
            from ssd_keras.evaluation.plots import plot_precision_recall

            plot_precision_recall(result, _PLOT.value)
    speed = stopwatch.images / stopwatch.seconds
    print(f"{result}\n{stopwatch.images} images, {speed:.1f} images/s")
    if _OUT.value:
        report = {"model": _MODEL.value, "records": _RECORDS.value, "images_per_second": speed}
        with atomic(_OUT.value) as path:
            path.write_text(json.dumps(report | result.to_dict(), indent=1, ensure_ascii=False))
