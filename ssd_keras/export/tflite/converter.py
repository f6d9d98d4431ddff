"""TFLite files for phones, edge devices and browsers.

The kinds, their inputs and outputs are described in export/README.md.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from ssd_keras import native_log
from ssd_keras.config import SSDConfig
from ssd_keras.detections import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD, DetectionDecoder
from ssd_keras.export.agreement import Agreement, compare, reference
from ssd_keras.export.checks import (
    check_agreement,
    class_labels,
    in_float32,
    sample_pictures,
    versions,
)
from ssd_keras.export.tflite.checks import check_structure
from ssd_keras.export.tflite.graphs import KINDS, graph
from ssd_keras.export.tflite.interpreter import TFLiteDetector
from ssd_keras.export.tflite.metadata import add_metadata
from ssd_keras.export.tolerances import TFLITE, TFLITE_PRECISIONS
from ssd_keras.files import atomic
from ssd_keras.images import warp
from ssd_keras.native_log import without_lines

# Everything but the convolutions stays in float: with the heads in one tensor all offsets and
# logits would share one scale, and a softmax in 8 bits has no scores below 1/256.
_FLOAT_OPERATORS = (
    "ADD", "CONCATENATION", "EXP", "GATHER", "GREATER", "L2_NORMALIZATION", "LESS", "MAXIMUM",
    "MINIMUM", "MUL", "PACK", "RELU", "REVERSE_V2", "SELECT_V2", "SOFTMAX", "STRIDED_SLICE", "SUB",
    "TOPK_V2", "UNPACK",
)  # fmt: skip
_CALIBRATION_IMAGES = 100


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    kind: str = "detections",
    precision: str = "float32",
    calibration: tf.data.Dataset | None = None,
    labels: Sequence[str] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
) -> Agreement:
    """Writes a detector as a TFLite file, once it has been seen to work.

    Args:
        model: A model of `ssd_vgg16`; one of mixed precision is exported in float32.
        path: The file, whose name ends in `.tflite`; one that is there is replaced.
        kind: "raw" (all boxes and scores, for GPU and NPU delegates), "detections" (the outputs
            of the SavedModel) or "mediapipe" (for MediaPipe Tasks' ObjectDetector).
        precision: "float32", "float16" (weights), "dynamic" (8-bit weights) or "int8" (8-bit
            weights and activations; `image` is uint8, the outputs are float as ever).
        calibration: For "int8": batches whose first element is images float32 [B, S, S, 3], RGB
            0..255, such as `eval_dataset` gives of the training records; the first 100 images are
            used.
        labels: Names of the C classes; by default the model's own.
        score_threshold: See `DetectionDecoder`, as the next two.
        iou_threshold: In (0, 1].
        max_detections: K.

    Returns:
        How the file's detections on three built-in pictures agree with the Keras model's; if the
        model finds nothing on them, its `is_empty` is true and a warning is logged.

    Raises:
        ValueError: If the arguments do not fit together or a weight is not finite.
        RuntimeError: If the file is not built as it should be or detects otherwise than the model
            beyond `export.tolerances`; nothing is written then.
    """
    check_options(path, kind, precision, calibration is not None)
    labels = class_labels(model, labels)
    config = model.ssd_config
    model = in_float32(model)
    decoder = DetectionDecoder(config, score_threshold, iou_threshold, max_detections)
    with without_lines(native_log.TFLITE):
        content = _convert(model, graph(model, decoder, kind), config, precision, calibration)
    check_structure(content, model, kind, precision)
    description = {
        "kind": kind,
        "precision": precision,
        "labels": labels,
        "score_threshold": score_threshold,
        "iou_threshold": iou_threshold,
        "max_detections": max_detections,
        "config": config.to_dict(),
        "versions": versions(),
    }
    with atomic(path) as temporary:
        temporary.write_bytes(add_metadata(content, kind, description))
        images = np.stack([warp(picture, config.image_size) for picture in sample_pictures()])
        found = TFLiteDetector(temporary)(images)
        tolerance = TFLITE[precision]
        agreement = compare(reference(model, decoder, images), found, decoder, tolerance)
        check_agreement(path, agreement, tolerance)
    return agreement


def check_options(
    path: str | os.PathLike[str], kind: str, precision: str, calibrated: bool
) -> None:
    """Checks what can be checked before any work.

    Args:
        path: See `export_tflite`, as the next two.
        kind: "raw", "detections" or "mediapipe".
        precision: Of `TFLITE_PRECISIONS`.
        calibrated: Whether there are images for calibration.

    Raises:
        ValueError: If an option is unknown, they do not fit together, or no file can be at `path`.
    """
    if Path(path).suffix != ".tflite" or Path(path).is_dir():
        raise ValueError(f"path (={path}) must be a file whose name ends in .tflite")
    for name, value, known in (("kind", kind, KINDS), ("precision", precision, TFLITE_PRECISIONS)):
        if value not in known:
            raise ValueError(f"{name} (={value!r}) must be one of {', '.join(known)}")
    if precision == "int8" and not calibrated:
        raise ValueError(
            "calibration is missing: precision 'int8' needs images such as those of the training "
            "(--calibration_records)"
        )
    if calibrated and precision != "int8":
        raise ValueError(f"calibration must not be given with precision (={precision!r})")


def _convert(
    model: keras.Model,
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    config: SSDConfig,
    precision: str,
    calibration: tf.data.Dataset | None,
) -> bytes:
    """The bare TFLite file."""
    size = config.image_size
    spec = tf.TensorSpec([1, size, size, 3], tf.float32, "image")
    concrete = tf.function(function, input_signature=[spec]).get_concrete_function()
    # The converter finds the weights' values only through an object that tracks the variables
    # themselves; the Keras model would give a file full of uninitialised ones.
    weights = tf.Module()
    weights.variables_ = [variable.value for variable in model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], weights)
    if precision == "float32":
        return bytes(converter.convert())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if calibration is None:
        return bytes(converter.convert())
    converter.representative_dataset = lambda: _calibration_images(calibration, size)
    # The converter's own last step, which has no public way to leave operators in float.
    quantize = _quantizer(converter)
    converter._experimental_calibrate_only = True
    calibrated = converter.convert()
    # A list: in a tuple the names are passed over in silence.
    denied = list(_FLOAT_OPERATORS)
    quantized = quantize(calibrated, input_data_type=tf.uint8, denylisted_ops=denied)
    return _with_levels_as_they_are(bytes(quantized))


def _quantizer(converter: tf.lite.TFLiteConverter) -> Callable[..., bytes]:
    """The quantization step of the converter, which is private.

    Raises:
        RuntimeError: If this TensorFlow does not have it.
    """
    try:
        from tensorflow.lite.python.convert import mlir_quantize
    except ImportError:
        mlir_quantize = None
    if (
        mlir_quantize is None
        or not hasattr(converter, "_experimental_calibrate_only")
        or "denylisted_ops" not in inspect.signature(mlir_quantize).parameters
    ):
        raise RuntimeError(
            f"precision (='int8') needs two private arguments of the TFLite converter, which "
            f"TensorFlow {tf.__version__} does not have: export with TensorFlow 2.21, or take "
            "another precision"
        )
    quantize: Callable[..., bytes] = mlir_quantize
    return quantize


def _with_levels_as_they_are(content: bytes) -> bytes:
    """Makes the levels 0..255 of the input mean themselves.

    The converter has 255 mean the brightest level of the calibration's pictures. The input's one
    reader turns it into floats, so that its scale may be set.
    """
    changed = bytearray(content)  # in place: written anew, the weights lose their alignment
    graph = schema.Model.GetRootAs(changed, 0).Subgraphs(0)
    quantization = graph.Tensors(graph.Inputs(0)).Quantization()
    quantization.ScaleAsNumpy()[:] = 1
    quantization.ZeroPointAsNumpy()[:] = 0
    return bytes(changed)


def _calibration_images(calibration: tf.data.Dataset, size: int) -> Iterator[list[Any]]:
    """The first images one by one, float32 [1, S, S, 3]."""
    images = calibration.map(lambda images, *_: images).unbatch().batch(1)
    brightest = 0.0
    for image in images.take(_CALIBRATION_IMAGES):
        if image.dtype != tf.float32 or image.shape != (1, size, size, 3):
            raise ValueError(
                f"calibration has images of {image.dtype.name} {tuple(image.shape[1:])}, but they "
                f"must be float32 ({size}, {size}, 3): use eval_dataset"
            )
        brightest = max(brightest, float(tf.reduce_max(image)))
        yield [image]
    if brightest <= 1:
        raise ValueError(
            f"calibration has no pixel above {brightest:g}, but must have RGB images in 0..255"
        )
