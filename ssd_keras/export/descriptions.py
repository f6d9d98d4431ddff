"""What an exported file says about itself: labels, thresholds and config.

Reading them needs neither LiteRT nor the converter.
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
    """The class names of a SavedModel: line k of `assets/labels.txt` names class id k, from 1.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return tuple(_asset(path, LABELS).read_text("utf-8").splitlines())


def saved_model_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Labels, thresholds and config with which a SavedModel was made.

    Raises:
        FileNotFoundError: If it was not made by `export_saved_model`.
    """
    description: dict[str, Any] = json.loads(_asset(path, DESCRIPTION).read_text("utf-8"))
    return description


def _asset(path: str | os.PathLike[str], name: str) -> Path:
    file = Path(path, "assets", name)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: {path} must be made by export_saved_model")
    return file


def tflite_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Kind, precision, labels, thresholds and config with which a TFLite file was made.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it was not made by `export_tflite`.
    """
    try:
        with zipfile.ZipFile(path) as files:
            description: dict[str, Any] = json.loads(files.read(DESCRIPTION))
    except (zipfile.BadZipFile, KeyError):
        raise ValueError(
            f"{path} carries no {DESCRIPTION}: it must be made by export_tflite"
        ) from None
    return description


def described_decoder(description: dict[str, Any]) -> DetectionDecoder:
    """The decoder with the config and thresholds of an exported file's description."""
    thresholds = (description[name] for name in THRESHOLDS)
    return DetectionDecoder(SSDConfig.from_dict(description["config"]), *thresholds)
