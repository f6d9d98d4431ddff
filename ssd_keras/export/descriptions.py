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

LABELS, DESCRIPTION = "labels.txt", "detector.json"
THRESHOLDS = ("score_threshold", "iou_threshold", "max_detections")


def saved_model_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads the class names of a SavedModel.

    Args:
        path: Folder of the SavedModel.

    Returns:
        The lines of `assets/labels.txt`. The first line names class 1.

    Raises:
        FileNotFoundError: If the folder has no `assets/labels.txt`.
    """
    return tuple(_asset(path, LABELS).read_text("utf-8").splitlines())


def saved_model_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the description that `export_saved_model` stored in a SavedModel.

    Args:
        path: Folder of the SavedModel.

    Returns:
        The content of `assets/detector.json`: `labels`, the thresholds in `THRESHOLDS`, `frozen`,
        `config` (see `SSDConfig.from_dict`) and `versions`.

    Raises:
        FileNotFoundError: If the folder has no `assets/detector.json`.
    """
    description: dict[str, Any] = json.loads(_asset(path, DESCRIPTION).read_text("utf-8"))
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
    try:
        with zipfile.ZipFile(path) as files:
            description: dict[str, Any] = json.loads(files.read(DESCRIPTION))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} contains no {DESCRIPTION}: it must be made by export_tflite"
        ) from None
    return description


def described_decoder(description: dict[str, Any]) -> DetectionDecoder:
    """Creates the decoder with the config and the thresholds of an exported file.

    Args:
        description: From `saved_model_description` or `tflite_description`.
    """
    thresholds = (description[name] for name in THRESHOLDS)
    return DetectionDecoder(SSDConfig.from_dict(description["config"]), *thresholds)
