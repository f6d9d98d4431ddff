"""Runs a Keras model and what was exported from it on the same pictures, and reports agreement.

Each file is fed through its own input path: encoded pictures for the SavedModel, pixels at the
network's size for TFLite.
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
from ssd_keras.export.checks import in_float32, versions
from ssd_keras.export.descriptions import THRESHOLDS, saved_model_description, tflite_description
from ssd_keras.export.tolerances import SAVED_MODEL, TFLITE
from ssd_keras.files import atomic
from ssd_keras.images import to_rgb, warp
from ssd_keras.inference.detector import Detector, keras_detector, load_detector
from ssd_keras.inference.record_sets import record_label_ids, relabelled
from ssd_keras.model import load_model

MAX_AP_LOSS = 0.01
_SHEET_PICTURES, _SHEET_SCORE = 6, 0.3
_BYTES_PER_WEIGHT = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """An exported file that can be run.

    Attributes:
        name: For the report.
        description: Labels, thresholds and config that it carries.
        tolerance: How far it may be from the Keras model.
        detector: What runs it.
    """

    name: str
    description: dict[str, Any]
    tolerance: Tolerance
    detector: Detector

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Score threshold, IoU threshold and most detections, as in `THRESHOLDS`."""
        return tuple(self.description[name] for name in THRESHOLDS)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What is found out about one file; the Keras model itself is the first.

    Attributes:
        name: Of the file.
        thresholds: As in `THRESHOLDS`.
        megabytes: Its size; of a Keras model that of the weights, since its file may hold the state
            of an optimizer.
        milliseconds: Median from one encoded picture to its detections.
        mean_ap: Area VOC AP on the labelled pictures; NaN if there are no labels.
        tolerance: The largest differences that count as agreement; None for the Keras model.
        agreement: With the Keras model at the same thresholds; None for that itself.
        agrees: Whether within the tolerance, and AP at most `MAX_AP_LOSS` lower.
        detections: Of each picture.
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
    """The verdicts on the Keras model and the files made from it.

    Attributes:
        labels: Class names.
        samples: The pictures.
        verdicts: On the Keras model (AP, size and speed), then on each exported file.
    """

    labels: tuple[str, ...]
    samples: Sequence[Sample]
    verdicts: list[Verdict]

    @property
    def agrees(self) -> bool:
        """Whether every file is within its tolerance."""
        return all(verdict.agrees for verdict in self.verdicts)


def load_exported(path: str | os.PathLike[str]) -> Exported:
    """Loads the folder of a SavedModel or a `.tflite` file.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is not of this package's making.
    """
    path = Path(path)
    detector = load_detector(path)
    if path.is_dir():
        description, tolerance = saved_model_description(path), SAVED_MODEL
    else:
        description = tflite_description(path)
        tolerance = TFLITE[description["precision"]]
    return Exported(path.name, description, tolerance, detector)


def verify(
    model_path: str | os.PathLike[str],
    exported_paths: Sequence[str | os.PathLike[str]],
    samples: Sequence[Sample],
    *,
    record_labels: Sequence[str] | None = None,
    compared: int = 16,
) -> Report:
    """Runs everything on the same pictures.

    The Keras model is measured with the thresholds of the first file, and each file is compared
    with what the model finds at the thresholds of that file.

    Args:
        model_path: The `.keras` file.
        exported_paths: SavedModel folders and `.tflite` files made from it, at least one.
        samples: The pictures.
        record_labels: Class names of the samples' ground truth, to measure AP; None if they have
            none.
        compared: Number of pictures, the first ones, on which boxes and scores are compared.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not of this package's making, or of a model with other labels, or
            the ground truth has others.
    """
    model = in_float32(load_model(model_path))  # what the exporters export
    exports = [load_exported(path) for path in exported_paths]
    labels = _common_labels(model, exports)
    size = model.ssd_config.image_size
    images = np.stack([warp(sample.image, size) for sample in samples[:compared]])
    label_ids = record_label_ids(labels, record_labels or labels)

    def measured(detector: Detector) -> tuple[list[Detections], float, float]:
        found, milliseconds = _run(lambda picture: detector.detect([picture])[0], samples)
        if record_labels is None:
            return found, milliseconds, float("nan")
        named = [relabelled(image, label_ids) for image in found]
        ap = voc_average_precision(named, samples, record_labels).mean_ap_area
        return found, milliseconds, ap

    @functools.cache
    def ours(*thresholds: float) -> tuple[list[Detections], float, float, list[Reference]]:
        decoder = _decoder(model, thresholds)
        references = reference(model, decoder, images)
        return *measured(keras_detector(model, decoder)), references

    found, milliseconds, ap, _ = ours(*exports[0].thresholds)
    megabytes = model.count_params() * _BYTES_PER_WEIGHT / 1e6
    name = Path(model_path).name
    verdicts = [
        Verdict(name, exports[0].thresholds, megabytes, milliseconds, ap, None, None, True, found)
    ]
    for exported, path in zip(exports, exported_paths, strict=True):
        thresholds, tolerance = exported.thresholds, exported.tolerance
        _, _, keras_ap, references = ours(*thresholds)
        found, milliseconds, ap = measured(exported.detector)
        decoder = _decoder(model, thresholds)
        agreement = compare(references, found[:compared], decoder, tolerance)
        agrees = tolerance.covers(agreement) and not keras_ap - ap > MAX_AP_LOSS
        measures = (_megabytes(path), milliseconds, ap)
        verdicts.append(
            Verdict(exported.name, thresholds, *measures, tolerance, agreement, agrees, found)
        )
    return Report(labels, samples, verdicts)


def _common_labels(model: keras.Model, exports: Sequence[Exported]) -> tuple[str, ...]:
    """The class names of model and files, which must be the same; a model need not carry any."""
    predictions = model.get_layer("predictions")
    labels = predictions.labels or tuple(exports[0].description["labels"])
    for exported in exports:
        theirs = tuple(exported.description["labels"])
        if theirs != labels or len(theirs) != predictions.num_classes:
            raise ValueError(
                f"{exported.name} has the labels {theirs}, but must have {labels}, "
                f"{predictions.num_classes} in all: it is exported from another model"
            )
    return labels


def table(report: Report) -> str:
    """The report as text."""
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
    """Writes `verification.json`, and `verification.png`: a row a picture, a column a file."""
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
    for number, sample in enumerate(report.samples[:_SHEET_PICTURES]):
        picture = to_rgb(Image.open(io.BytesIO(sample.image)))
        for v in report.verdicts:
            cells.append(_cell(picture, v.detections[number], v.name, report.labels))
    with atomic(Path(directory, "verification.png")) as path:
        contact_sheet(cells, columns=len(report.verdicts)).save(path)


def _cell(picture: Image.Image, found: Detections, name: str, labels: Sequence[str]) -> Image.Image:
    """The picture with its best detections, under the name of the file they are from."""
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
    """Detections on all pictures, and the median milliseconds."""
    detect(samples[0].image)  # builds and warms up
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
