"""Runs a Keras model and its exported files on the same images, and reports their agreement.

Each file is tested from encoded images to detections, with its own preprocessing.
"""

import dataclasses
import functools
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ssd_keras.data.records import Sample
from ssd_keras.detections import DetectionDecoder, Detections
from ssd_keras.drawing import contact_sheet, draw_detections
from ssd_keras.evaluation.inputs import none_if_nan
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.export.agreement import Agreement, Reference, Tolerance, compare, reference
from ssd_keras.export.checks import in_float32, versions, warn_if_bfloat16_is_slow
from ssd_keras.export.descriptions import THRESHOLDS, saved_model_description, tflite_description
from ssd_keras.export.tolerances import SAVED_MODEL, TFLITE
from ssd_keras.files import atomic
from ssd_keras.images import to_rgb, warp
from ssd_keras.inference.detector import Detector, keras_detector, load_detector
from ssd_keras.inference.record_sets import record_label_ids, relabeled
from ssd_keras.model import load_model

MAX_AP_LOSS = 0.01  # largest loss of mean AP that an exported file may have
_SHEET_IMAGES, _SHEET_SCORE = 6, 0.3  # rows of the PNG, and minimum score of its boxes


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """A loaded exported file.

    Attributes:
        name: File name, for the report.
        description: Labels, thresholds and config stored in the file.
        tolerance: The tolerance within which the file must agree with the Keras model.
        detector: Runs the file.
    """

    name: str
    description: dict[str, Any]
    tolerance: Tolerance
    detector: Detector

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Score threshold, IoU threshold and maximum number of detections of the file."""
        return tuple(self.description[name] for name in THRESHOLDS)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The measurements of one file, or of the Keras model.

    Attributes:
        name: File name.
        thresholds: Score threshold, IoU threshold and maximum number of detections.
        megabytes: Size of the file in 10^6 bytes. For the Keras model it is the size of the
            weights, because a .keras file may also contain the state of an optimizer.
        milliseconds: Median time from one encoded image to its detections.
        mean_ap: Mean area AP (VOC); NaN without ground truth.
        tolerance: The tolerance of the file; None for the Keras model.
        agreement: Agreement with the Keras model at the same thresholds; None for the model itself.
        agrees: Whether the agreement is within the tolerance, and the mean AP is at most
            `MAX_AP_LOSS` below that of the Keras model.
        detections: The detections of each image.
    """

    name: str
    thresholds: tuple[float, ...]
    megabytes: float
    milliseconds: float
    mean_ap: float
    tolerance: Tolerance | None
    agreement: Agreement | None
    agrees: bool
    detections: list[Detections]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The measurements of the Keras model and of its exported files.

    Attributes:
        labels: Class names; `labels[0]` is class 1.
        samples: The images.
        verdicts: One for the Keras model, then one for each exported file.
    """

    labels: tuple[str, ...]
    samples: Sequence[Sample]
    verdicts: list[Verdict]

    @property
    def agrees(self) -> bool:
        """Whether every file agrees with the Keras model."""
        return all(verdict.agrees for verdict in self.verdicts)


def load_exported(path: str | os.PathLike[str]) -> Exported:
    """Loads an exported file with its description and its tolerance.

    Args:
        path: The folder of a SavedModel, or a `.tflite` file.

    Returns:
        The loaded file.

    Raises:
        FileNotFoundError: If `path` or the description in it does not exist.
        ValueError: If the file was not exported by this package.
    """
    path = Path(path)
    detector = load_detector(path)
    if path.is_dir():
        description, tolerances = saved_model_description(path), SAVED_MODEL
    else:
        description, tolerances = tflite_description(path), TFLITE
    precision = description["precision"]
    if precision not in tolerances:
        raise ValueError(
            f"{path} has the precision {precision!r}, which is not one of {', '.join(tolerances)}: "
            "export the model again"
        )
    if precision == "bfloat16":
        warn_if_bfloat16_is_slow()
    tolerance = tolerances[precision]
    return Exported(path.name, description, tolerance, detector)


def verify(
    model_path: str | os.PathLike[str],
    exported_paths: Sequence[str | os.PathLike[str]],
    samples: Sequence[Sample],
    *,
    record_labels: Sequence[str] | None = None,
    compared: int = 16,
) -> Report:
    """Runs a Keras model and its exported files on the same images, and compares them.

    Each file is compared with the Keras model at the thresholds of the file. The reported AP, size
    and speed of the Keras model are those at the thresholds of the first file.

    Args:
        model_path: The `.keras` file.
        exported_paths: SavedModel folders and `.tflite` files exported from it, at least one.
        samples: The images.
        record_labels: Class names of the ground truth of the samples, in the order of its label
            ids, to compute AP. None if the samples have no ground truth.
        compared: Number of images on which boxes and scores are compared, counted from the first.
            AP and speed are measured on all images.

    Returns:
        The measurements.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file was not exported by this package, or the labels of model, files and
            ground truth differ.
    """
    model = in_float32(load_model(model_path))  # exports are compared with float32
    exports = [load_exported(path) for path in exported_paths]
    labels = _common_labels(model, exports)
    size = model.ssd_config.image_size
    images = np.stack([warp(sample.image, size) for sample in samples[:compared]])
    label_ids = record_label_ids(labels, record_labels or labels)

    def measure(detector: Detector) -> tuple[list[Detections], float, float]:
        """Returns detections, milliseconds and AP of a detector."""
        found, milliseconds = _run(lambda picture: detector.detect([picture])[0], samples)
        if record_labels is None:
            return found, milliseconds, float("nan")
        renumbered = [relabeled(image, label_ids) for image in found]
        ap = voc_average_precision(renumbered, samples, record_labels).mean_ap_area
        return found, milliseconds, ap

    @functools.cache
    def measure_model(*thresholds: float) -> tuple[list[Detections], float, float, list[Reference]]:
        decoder = _decoder(model, thresholds)
        references = reference(model, decoder, images)
        return *measure(keras_detector(model, decoder)), references

    found, milliseconds, ap, _ = measure_model(*exports[0].thresholds)
    megabytes = model.count_params() * 4 / 1e6  # float32
    name = Path(model_path).name
    verdicts = [
        Verdict(name, exports[0].thresholds, megabytes, milliseconds, ap, None, None, True, found)
    ]
    for exported, path in zip(exports, exported_paths, strict=True):
        thresholds, tolerance = exported.thresholds, exported.tolerance
        _, _, keras_ap, references = measure_model(*thresholds)
        found, milliseconds, ap = measure(exported.detector)
        decoder = _decoder(model, thresholds)
        agreement = compare(references, found[:compared], decoder, tolerance)
        # AP is NaN without ground truth, or with difficult objects only. `not >` is then True.
        agrees = tolerance.covers(agreement) and not keras_ap - ap > MAX_AP_LOSS
        measures = (_megabytes(path), milliseconds, ap)
        verdicts.append(
            Verdict(exported.name, thresholds, *measures, tolerance, agreement, agrees, found)
        )
    return Report(labels, samples, verdicts)


def _common_labels(model: keras.Model, exports: Sequence[Exported]) -> tuple[str, ...]:
    """Returns the labels of the model, or of the first file if the model has none.

    Raises:
        ValueError: If a file has other labels, or not as many as the model has classes.
    """
    predictions = model.get_layer("predictions")
    labels = predictions.labels or tuple(exports[0].description["labels"])
    for exported in exports:
        file_labels = tuple(exported.description["labels"])
        if len(file_labels) != predictions.num_classes:
            raise ValueError(
                f"{exported.name} has {len(file_labels)} labels, but the model has "
                f"{predictions.num_classes} classes: it was exported from another model"
            )
        if file_labels != labels:
            raise ValueError(
                f"{exported.name} has the labels {file_labels}, but must have {labels}: it was "
                "exported from another model"
            )
    return labels


def table(report: Report) -> str:
    """Formats a report as a text table.

    The columns are the size, the milliseconds per image, the mean AP, the values of `Agreement`
    (largest difference of boxes, of scores, unmatched / clear detections, far detections), and the
    verdict.

    Args:
        report: From `verify`.

    Returns:
        The lines of the table.
    """
    rows = [("", "MB", "ms", "AP", "boxes", "scores", "unmatched", "far", "")]
    for v in report.verdicts:
        a = v.agreement
        differences = ("", "", "", "")
        if a:
            differences = (
                f"{a.box_difference:.1e}",
                f"{a.score_difference:.1e}",
                f"{a.unmatched}/{a.detections}",
                f"{a.far}",
            )
        verdict = "" if a is None else "agrees" if v.agrees else "DIFFERS"
        if a and a.is_empty:
            verdict = "NOTHING TO COMPARE"
        ap = "" if np.isnan(v.mean_ap) else f"{v.mean_ap:.4f}"
        rows.append(
            (v.name, f"{v.megabytes:.1f}", f"{v.milliseconds:.0f}", ap, *differences, verdict)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = ["<", *">" * (len(widths) - 2), "<"]
    lines = (
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def write_report(report: Report, directory: str | os.PathLike[str]) -> None:
    """Writes a report as `verification.json` and `verification.png`.

    The PNG shows the detections on the first images: one row per image, one column per file.

    Args:
        report: From `verify`.
        directory: Folder to write to; it is created if it is missing.

    Raises:
        OSError: If a file cannot be written.
    """
    values = [
        {
            "name": v.name,
            **dict(zip(THRESHOLDS, v.thresholds, strict=True)),
            "megabytes": v.megabytes,
            "milliseconds": v.milliseconds,
            "mean_ap": none_if_nan(v.mean_ap),
            "tolerance": None if v.tolerance is None else dataclasses.asdict(v.tolerance),
            "agreement": None if v.agreement is None else dataclasses.asdict(v.agreement),
            "agrees": v.agrees,
        }
        for v in report.verdicts
    ]
    content = {
        "files": values,
        "pictures": [sample.image_id for sample in report.samples],
        "versions": versions(),
    }
    with atomic(Path(directory, "verification.json")) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    cells = []
    for number, sample in enumerate(report.samples[:_SHEET_IMAGES]):
        picture = to_rgb(Image.open(io.BytesIO(sample.image)))
        for v in report.verdicts:
            cells.append(_cell(picture, v.detections[number], v.name, report.labels))
    with atomic(Path(directory, "verification.png")) as path:
        contact_sheet(cells, columns=len(report.verdicts)).save(path)


def _cell(picture: Image.Image, found: Detections, name: str, labels: Sequence[str]) -> Image.Image:
    """Draws detections on an image, and the name of their file above it."""
    best = found["scores"] >= _SHEET_SCORE
    boxes, classes, scores = (found[k][best] for k in ("boxes", "classes", "scores"))
    drawn = draw_detections(picture, boxes, classes.astype(int), labels, scores)
    line = max(12, picture.height // 20)
    cell = ImageOps.expand(drawn, (0, line + 4, 0, 0), "white")
    ImageDraw.Draw(cell).text((2, 2), name, fill="black", font_size=line)
    return cell


def _decoder(model: keras.Model, thresholds: Sequence[float]) -> DetectionDecoder:
    score_threshold, iou_threshold, max_detections = thresholds
    config = model.ssd_config
    return DetectionDecoder(config, score_threshold, iou_threshold, int(max_detections))


def _run(
    detect: Callable[[bytes], Detections], samples: Sequence[Sample]
) -> tuple[list[Detections], float]:
    """Detects on all images; returns the detections and the median milliseconds per image."""
    detect(samples[0].image)  # builds the graph, outside of the measurement
    found, seconds = [], []
    for sample in samples:
        start = time.perf_counter()
        found.append(detect(sample.image))
        seconds.append(time.perf_counter() - start)
    return found, float(np.median(seconds)) * 1e3


def _megabytes(path: str | os.PathLike[str]) -> float:
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
