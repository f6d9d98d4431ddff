"""SSD: Single Shot MultiBox Detector for Keras 3 and TensorFlow.

Implements VGG16-SSD300 and SSD512 of

    W. Liu, D. Anguelov, D. Erhan, C. Szegedy, S. Reed, C.-Y. Fu, A. C. Berg:
    SSD: Single Shot MultiBox Detector. ECCV 2016. arXiv:1512.02325 (v5),

and of its original code, github.com/weiliu89/caffe, branch ssd. In this package "section",
"figure" and "equation" refer to the paper, and "Source: `*.cpp`" or "`*.py`" to the original code.

Conventions:

- Boxes are normalized `yxyx` = (ymin, xmin, ymax, xmax), as fractions of the image.
- Images are RGB with values in 0..255.
- Class 0 is the background. `num_classes` counts the foreground classes, whose ids start at 1.
- Symbols in shapes: B images in a batch, H x W pixels of an image, P default
  boxes, G ground truth boxes after padding, C foreground classes, K detections after padding.
"""

import importlib
import itertools
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ssd_keras.version import __version__

if TYPE_CHECKING:
    from ssd_keras.augmentation.ops import augment
    from ssd_keras.boxes import decode, encode, pairwise_iou
    from ssd_keras.class_names import read_labels
    from ssd_keras.config import (
        SSD300_COCO,
        SSD300_VOC,
        SSD512_COCO,
        SSD512_VOC,
        ExtraLayer,
        FeatureMap,
        SSDConfig,
    )
    from ssd_keras.data.pipeline import eval_dataset, train_dataset
    from ssd_keras.detections import DetectionDecoder
    from ssd_keras.drawing import draw_detections
    from ssd_keras.evaluation.coco import coco_average_precision
    from ssd_keras.evaluation.voc import voc_average_precision
    from ssd_keras.export.saved_model import export_saved_model
    from ssd_keras.export.tflite.converter import export_tflite
    from ssd_keras.inference.detector import load_detector
    from ssd_keras.losses import MultiBoxLoss
    from ssd_keras.matching import match
    from ssd_keras.model import ssd_vgg16
    from ssd_keras.predictions import split_predictions
    from ssd_keras.tiling import default_boxes
    from ssd_keras.training.optimizer import Adam, CaffeSGD, Schedule
    from ssd_keras.training.validation import COCOEvaluation, VOCEvaluation
    from ssd_keras.truth import ground_truth
    from ssd_keras.weights.load import load_weights

__all__ = [
    "SSD300_COCO",
    "SSD300_VOC",
    "SSD512_COCO",
    "SSD512_VOC",
    "Adam",
    "COCOEvaluation",
    "CaffeSGD",
    "DetectionDecoder",
    "ExtraLayer",
    "FeatureMap",
    "MultiBoxLoss",
    "SSDConfig",
    "Schedule",
    "VOCEvaluation",
    "__version__",
    "augment",
    "coco_average_precision",
    "decode",
    "default_boxes",
    "draw_detections",
    "encode",
    "eval_dataset",
    "export_saved_model",
    "export_tflite",
    "ground_truth",
    "load_detector",
    "load_weights",
    "match",
    "pairwise_iou",
    "read_labels",
    "split_predictions",
    "ssd_vgg16",
    "train_dataset",
    "voc_average_precision",
]

# The module of each public name. A module is imported when one of its names is first used
# (PEP 562), so that training imports neither the exporters nor pycocotools.
_MODULES = {
    "augmentation.ops": ("augment",),
    "boxes": ("decode", "encode", "pairwise_iou"),
    "class_names": ("read_labels",),
    "config": (
        *("SSD300_COCO", "SSD300_VOC", "SSD512_COCO", "SSD512_VOC"),
        *("ExtraLayer", "FeatureMap", "SSDConfig"),
    ),
    "data.pipeline": ("eval_dataset", "train_dataset"),
    "detections": ("DetectionDecoder",),
    "drawing": ("draw_detections",),
    "evaluation.coco": ("coco_average_precision",),
    "evaluation.voc": ("voc_average_precision",),
    "export.saved_model": ("export_saved_model",),
    "export.tflite.converter": ("export_tflite",),
    "inference.detector": ("load_detector",),
    "losses": ("MultiBoxLoss",),
    "matching": ("match",),
    "model": ("ssd_vgg16",),
    "predictions": ("split_predictions",),
    "tiling": ("default_boxes",),
    "truth": ("ground_truth",),
    "training.optimizer": ("Adam", "CaffeSGD", "Schedule"),
    "training.validation": ("COCOEvaluation", "VOCEvaluation"),
    "weights.load": ("load_weights",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _is_command() -> bool:
    """Whether this process was started as `ssd-keras ...` or `python -m ssd_keras ...`."""
    words = sys.orig_argv
    as_module = any(pair == ("-m", __name__) for pair in itertools.pairwise(words))
    return as_module or os.path.basename(sys.argv[0]) in ("ssd-keras", "ssd-keras.exe")


def _keras_backend() -> str:
    """Returns the backend that Keras has, or will have when it is imported.

    Source: `keras/src/backend/config.py`.
    """
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = os.path.expanduser("~")
    default = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    folder = os.path.expanduser(os.environ.get("KERAS_HOME", default))
    try:
        with open(os.path.join(folder, "keras.json"), encoding="utf-8") as file:
            return str(json.load(file).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"  # Keras, too, ignores a missing or damaged file


def _check_backend() -> None:
    """Raises ImportError unless TensorFlow is the backend of Keras.

    The check runs before this package imports Keras or TensorFlow.
    """
    if (backend := _keras_backend()) != "tensorflow":
        raise ImportError(
            f"ssd_keras needs the TensorFlow backend of Keras, not {backend!r}: set "
            "KERAS_BACKEND=tensorflow before the first import of keras"
        )


_check_backend()

# Importing these modules registers their classes with Keras, so that `keras.saving.load_model` can
# read the package's files. The command line skips this: it sets TensorFlow's log level first.
if not _is_command():
    for _module in ("detections", "losses", "model", "training.optimizer"):
        importlib.import_module(f"{__name__}.{_module}")
