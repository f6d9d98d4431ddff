"""Runs a Keras model and what was exported from it on the same pictures, and reports agreement.

Each file is fed through its own input path: encoded pictures for the SavedModel, pixels at the
network's size for TFLite.
"""

import dataclasses
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from ssd_keras.agreement import Agreement, Detections, Tolerance, compare, reference
from ssd_keras.config import SSDConfig
from ssd_keras.detections import DetectionDecoder
from ssd_keras.exporting import in_float32
from ssd_keras.files import atomic
from ssd_keras.metrics import none_if_nan, voc_average_precision
from ssd_keras.model import load_model
from ssd_keras.pipeline import warp
from ssd_keras.predictor import keras_detector, load_detector
from ssd_keras.records import Sample
from ssd_keras.serving import TOLERANCE, saved_model_description
from ssd_keras.tflite import TOLERANCES
from ssd_keras.tflite_runtime import TFLiteDetector
from ssd_keras.visualize import contact_sheet, draw_detections

MAX_AP_LOSS = 0.01
_SHEET_PICTURES, _SHEET_SCORE = 6, 0.3


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """An exported file that can be run.

    Attributes:
        name: For the report.
        description: Labels, thresholds and config that it carries.
        tolerance: How far it may be from the Keras model.
        detect: From one encoded picture to its detections.
    """

    name: str
    description: dict[str, Any]
    tolerance: Tolerance
    detect: Callable[[bytes], Detections]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What is found out about one file; the Keras model itself is the first.

    Attributes:
        name: Of the file.
        megabytes: Its size.
        milliseconds: Median from one encoded picture to its detections.
        mean_ap: Area VOC AP on the labelled pictures; NaN if there are no labels.
        agreement: With the Keras model; None for that itself.
        agrees: Whether within the tolerance, and AP at most `MAX_AP_LOSS` lower.
        detections: Of each picture.
    """

    name: str
    megabytes: float
    milliseconds: float
    mean_ap: float
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
    if path.is_dir():
        detector = load_detector(path)
        description = saved_model_description(path)
        return Exported(path.name, description, TOLERANCE, lambda p: detector.detect([p])[0])
    tflite = TFLiteDetector(path)
    size = tflite.description["config"]["image_size"]
    tolerance = TOLERANCES[tflite.description["precision"]]

    def detect(picture: bytes) -> Detections:
        return tflite([warp(picture, size).numpy()])[0]

    return Exported(path.name, tflite.description, tolerance, detect)


def verify(
    model_path: str | os.PathLike[str],
    exported_paths: Sequence[str | os.PathLike[str]],
    samples: Sequence[Sample],
    *,
    labelled: bool,
    compared: int = 16,
) -> Report:
    """Runs everything on the same pictures.

    Args:
        model_path: The `.keras` file.
        exported_paths: SavedModel folders and `.tflite` files made from it.
        samples: The pictures.
        labelled: Whether the samples have ground truth, to measure AP.
        compared: Number of pictures, the first ones, on which boxes and scores are compared.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is not of this package's making, or of a model with other labels.
    """
    model = in_float32(load_model(model_path))  # what the exporters export
    ours = keras_detector(model)
    size = model.get_layer("predictions").ssd_config.image_size
    images = np.stack([warp(sample.image, size) for sample in samples[:compared]])

    def mean_ap(found: list[Detections]) -> float:
        if not labelled:
            return float("nan")
        return voc_average_precision(found, samples, ours.labels).mean_ap_area

    found, milliseconds = _run(lambda picture: ours.detect([picture])[0], samples)
    name, keras_ap = Path(model_path).name, mean_ap(found)
    verdicts = [Verdict(name, _megabytes(model_path), milliseconds, keras_ap, None, True, found)]
    for path in exported_paths:
        exported = load_exported(path)
        if tuple(exported.description["labels"]) != ours.labels:
            raise ValueError(
                f"{path} has the labels {exported.description['labels']}, but the model "
                f"{model_path} has {ours.labels}: it is exported from another model"
            )
        decoder = _decoder(exported.description)
        found, milliseconds = _run(exported.detect, samples)
        references = reference(model, decoder, images)
        agreement = compare(references, found[:compared], decoder, exported.tolerance)
        ap = mean_ap(found)
        agrees = exported.tolerance.covers(agreement) and not keras_ap - ap > MAX_AP_LOSS
        megabytes = _megabytes(path)
        verdicts.append(
            Verdict(exported.name, megabytes, milliseconds, ap, agreement, agrees, found)
        )
    return Report(ours.labels, samples, verdicts)


def table(report: Report) -> str:
    """The report as text."""
    rows = [("", "MB", "ms", "AP", "boxes", "scores", "unmatched", "")]
    for v in report.verdicts:
        a = v.agreement
        differences = ("", "", "")
        if a:
            differences = (
                f"{a.box_difference:.1e}",
                f"{a.score_difference:.1e}",
                f"{a.unmatched}/{a.detections}",
            )
        verdict = "" if a is None else "agrees" if v.agrees else "DIFFERS"
        ap = "" if np.isnan(v.mean_ap) else f"{v.mean_ap:.4f}"
        rows.append(
            (v.name, f"{v.megabytes:.1f}", f"{v.milliseconds:.0f}", ap, *differences, verdict)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(f"{c:<{w}}" if i in (0, 7) else f"{c:>{w}}" for i, (c, w) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def write_report(report: Report, directory: str | os.PathLike[str]) -> None:
    """Writes `verification.json`, and `verification.png`: a row a picture, a column a file."""
    values = [
        {
            "name": v.name,
            "megabytes": v.megabytes,
            "milliseconds": v.milliseconds,
            "mean_ap": none_if_nan(v.mean_ap),
            "agreement": None if v.agreement is None else dataclasses.asdict(v.agreement),
            "agrees": v.agrees,
        }
        for v in report.verdicts
    ]
    with atomic(Path(directory, "verification.json")) as path:
        path.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    cells = []
    for number, sample in enumerate(report.samples[:_SHEET_PICTURES]):
        picture = Image.open(io.BytesIO(sample.image)).convert("RGB")
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


def _decoder(description: dict[str, Any]) -> DetectionDecoder:
    thresholds = ("score_threshold", "iou_threshold", "max_detections")
    config = SSDConfig.from_dict(description["config"])
    return DetectionDecoder(config, *(description[name] for name in thresholds))


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
