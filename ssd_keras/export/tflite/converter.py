"""Exports a model as a TFLite file for phones, edge devices and browsers.

`graphs.graph` documents the inputs and outputs of each kind of file.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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

# In int8 files only the convolutions are quantized, not these operators. An 8-bit concatenation of
# the heads would have one scale for all offsets and logits, and an 8-bit softmax cannot represent
# scores between 0 and 1/256.
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
    """Exports a detector as a TFLite file, and checks that it agrees with the Keras model.

    The input is `image` [1, S, S, 3], RGB 0..255: uint8 in precision "int8", float32 otherwise.
    `graphs.graph` documents the outputs of each kind. Labels, thresholds and config are stored in
    the file as `labels.txt` and `detector.json` (`zipfile` reads them).

    Args:
        model: A model of `ssd_vgg16`. A model in mixed precision is exported in float32.
        path: The file to write; its name must end in `.tflite`. An existing file is replaced.
        kind: "raw" for all boxes and scores (GPU and NPU delegates), "detections" for the outputs
            of the SavedModel, or "mediapipe" for the ObjectDetector of MediaPipe Tasks.
        precision: "float32"; "float16" for float16 weights; "dynamic" for 8-bit weights; or "int8"
            for 8-bit weights and activations of the convolutions. Outputs keep their dtypes.
        calibration: Required for "int8" and not allowed otherwise: batches whose first element is
            images float32 [B, S, S, 3], RGB 0..255, such as `eval_dataset` of the training
            records. The first 100 images are used.
        labels: Names of the C classes. Default: the labels stored in the model.
        score_threshold: Minimum score of a detection, exclusive, in [0, 1).
        iou_threshold: A box is suppressed if its IoU with a better box of its class is above this
            value, in (0, 1].
        max_detections: K, the maximum number of detections.

    Returns:
        The agreement between the file and the Keras model on three synthetic images. If the model
        detects nothing on them, `is_empty` is True and a warning is logged.

    Raises:
        ValueError: If an option is unknown or out of range, `path`, `calibration` or the labels
            are invalid, `model` is not an SSD, or a weight is not finite.
        RuntimeError: If the file fails `check_structure`, or differs from the model by more than
            the tolerance of its precision in `export.tolerances`. Nothing is written then. Also if
            `precision` is "int8" and this version of TensorFlow lacks private functions of the
            converter.
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
        "num_classes": len(labels),
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
    """Checks the options of `export_tflite` before the model is loaded.

    Args:
        path: The file to write.
        kind: Must be one of `graphs.KINDS`.
        precision: Must be one of `TFLITE_PRECISIONS`.
        calibrated: Whether calibration images are given. Must be True for "int8" only.

    Raises:
        ValueError: If an option is unknown, the options do not fit together, or `path` is a folder
            or does not end in `.tflite`.
    """
    if Path(path).suffix != ".tflite" or Path(path).is_dir():
        raise ValueError(f"path (={path}) must be a file whose name ends in .tflite")
    for name, value, known in (("kind", kind, KINDS), ("precision", precision, TFLITE_PRECISIONS)):
        if value not in known:
            raise ValueError(f"{name} (={value!r}) must be one of {', '.join(known)}")
    if precision == "int8" and not calibrated:
        raise ValueError(
            "calibration is missing: precision 'int8' needs images like those of the training "
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
    """Converts the function to a TFLite file without labels and description."""
    size = config.input_size
    spec = tf.TensorSpec([1, *size, 3], tf.float32, "image")
    concrete = tf.function(
        function, input_signature=[spec], autograph=False
    ).get_concrete_function()
    # The converter finds the values of the variables only if this object tracks them directly.
    # Given the Keras model, it writes a file of uninitialized variables.
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
    # The quantization step of the converter is called directly, because the public interface cannot
    # exclude operators from quantization.
    quantize = _quantizer(converter)
    converter._experimental_calibrate_only = True
    calibrated = converter.convert()
    denied = list(_FLOAT_OPERATORS)  # the converter silently ignores a tuple
    quantized = quantize(calibrated, input_data_type=tf.uint8, denylisted_ops=denied)
    return _with_unit_input_scale(bytes(quantized))


def _quantizer(converter: tf.lite.TFLiteConverter) -> Callable[..., bytes]:
    """Returns the quantization step of the converter, a private function of TensorFlow.

    Raises:
        RuntimeError: If this version of TensorFlow lacks it.
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
            f"precision (='int8') needs private functions of the TFLite converter, which "
            f"TensorFlow {tf.__version__} lacks: use TensorFlow 2.21 or another precision"
        )
    quantize: Callable[..., bytes] = mlir_quantize
    return quantize


def _with_unit_input_scale(content: bytes) -> bytes:
    """Sets scale 1 and zero point 0 for the input, so that uint8 0..255 means 0..255.

    The converter chooses a scale at which 255 is the brightest calibration pixel. The scale may be
    changed, because the only operator that reads the input converts it to float.
    """
    changed = bytearray(content)  # changed in place: writing a new file would misalign the weights
    graph = schema.Model.GetRootAs(changed, 0).Subgraphs(0)
    quantization = graph.Tensors(graph.Inputs(0)).Quantization()
    quantization.ScaleAsNumpy()[:] = 1
    quantization.ZeroPointAsNumpy()[:] = 0
    return bytes(changed)


def _calibration_images(
    calibration: tf.data.Dataset, size: tuple[int, int]
) -> Iterator[list[tf.Tensor]]:
    """Yields the first images of a data set one by one, float32 [1, height, width, 3]."""
    images = calibration.map(lambda images, *_: images).unbatch().batch(1)
    brightest = 0.0
    for image in images.take(_CALIBRATION_IMAGES):
        if image.dtype != tf.float32 or image.shape != (1, *size, 3):
            raise ValueError(
                f"calibration has images of {image.dtype.name} {tuple(image.shape[1:])}, but they "
                f"must be float32 {(*size, 3)}: use eval_dataset"
            )
        brightest = max(brightest, float(tf.reduce_max(image)))
        yield [image]
    if brightest <= 1:
        raise ValueError(
            f"calibration has no pixel above {brightest:g}, but must have RGB images in 0..255"
        )
