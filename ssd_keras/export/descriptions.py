"""Reads the description stored in an exported file: labels, thresholds and config.

This module needs neither LiteRT nor TensorFlow's converter.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from ssd_keras.config import SSDConfig
from ssd_keras.detections import DetectionDecoder
from ssd_keras.files import check_types, reading
from ssd_keras.predictions import checked_labels

LABELS, DESCRIPTION = "labels.txt", "detector.json"
THRESHOLDS = ("score_threshold", "iou_threshold", "max_detections")

_TYPES = {
    "labels": list[str],
    "score_threshold": float,
    "iou_threshold": float,
    "max_detections": int,
    "config": dict[str, object],
}
_MAX_BYTES = 1 << 24  # limit for the description in a TFLite file; usual files have about 3 kB
_REMEDY = "export the model again"


def saved_model_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads the class names of a SavedModel.

    Args:
        path: Folder of the SavedModel.

    Returns:
        The lines of `assets/labels.txt`. The first line names class 1.

    Raises:
        FileNotFoundError: If the folder has no `assets/labels.txt`.
        ValueError: If the file is not UTF-8, its names are not valid, or they are not those of
            `assets/detector.json`, if the folder has one.
    """
    file = _asset(path, LABELS)
    described = saved_model_description(path)["labels"] if is_described(path) else None
    with reading(file, _REMEDY):
        lines = file.read_text("utf-8").splitlines()
        if described not in (None, lines):
            raise ValueError(f"its {len(lines)} names are not those in {DESCRIPTION}")
        return checked_labels(lines, len(lines))


def is_described(path: str | os.PathLike[str]) -> bool:
    """Returns whether a SavedModel has the description that `export_saved_model` writes.

    Args:
        path: Folder of the SavedModel.
    """
    return Path(path, "assets", DESCRIPTION).is_file()


def saved_model_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the description that `export_saved_model` stored in a SavedModel.

    Args:
        path: Folder of the SavedModel.

    Returns:
        The content of `assets/detector.json`: `labels` and their number `num_classes`, the
        thresholds in `THRESHOLDS`, `max_pixels`, `precision`, `frozen`, `config` (see
        `SSDConfig.from_dict`) and `versions`.

    Raises:
        FileNotFoundError: If the folder has no `assets/detector.json`.
        ValueError: If the file is damaged.
    """
    file = _asset(path, DESCRIPTION)
    with reading(file, _REMEDY):
        description = _checked(json.loads(file.read_text("utf-8")))
        description.setdefault("precision", "float32")  # missing from files of earlier versions
        check_types(description, {"precision": str})
        return description


def _asset(path: str | os.PathLike[str], name: str) -> Path:
    file = Path(path, "assets", name)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {path} must be made by export_saved_model")
    return file


def tflite_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the description that `export_tflite` stored in a TFLite file.

    Args:
        path: The file.

    Returns:
        `kind`, `precision`, `labels`, the thresholds in `THRESHOLDS`, `config` (see
        `SSDConfig.from_dict`) and `versions`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file was not made by `export_tflite`.
    """
    fault = f"contains no valid {DESCRIPTION}"
    remedy = "it must be made by export_tflite"
    with reading(path, remedy, fault=fault), zipfile.ZipFile(path) as files:
        member = files.getinfo(DESCRIPTION)
        if member.file_size > _MAX_BYTES:
            raise ValueError(f"it takes {member.file_size} bytes, above {_MAX_BYTES}")
        description = _checked(json.loads(files.read(member)))
        check_types(description, {"kind": str, "precision": str})
        return description


def _checked(description: Any) -> dict[str, Any]:
    """Checks the types of a description, its thresholds and the number of its labels."""
    if not isinstance(description, dict):
        raise ValueError("it is not a dictionary")
    check_types(description, _TYPES)
    # Files of earlier versions lack both fields.
    check_types(description, {k: int for k in ("max_pixels", "num_classes") if k in description})
    labels = description["labels"]
    checked_labels(labels, description.get("num_classes", len(labels)))
    described_decoder(description)
    return description


def described_decoder(description: dict[str, Any]) -> DetectionDecoder:
    """Creates the decoder with the config and the thresholds of an exported file.

    Args:
        description: From `saved_model_description` or `tflite_description`.

    Returns:
        The decoder.

    Raises:
        ValueError: If the config or a threshold is not valid.
    """
    thresholds = (description[name] for name in THRESHOLDS)
    return DetectionDecoder(SSDConfig.from_dict(description["config"]), *thresholds)
