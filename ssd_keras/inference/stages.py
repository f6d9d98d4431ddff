"""The stages of a detector, as functions that a benchmark can time separately."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ssd_keras.detections import DetectionDecoder, unpad
from ssd_keras.export.descriptions import described_decoder, tflite_description
from ssd_keras.images import warp
from ssd_keras.inference.detector import load_detector
from ssd_keras.model import load_model

# The base network ends with fc7. It consists of the layers that the paper takes from VGG16.
FORWARD, BASE, SUPPRESSION = "forward", "base network", "decoding + suppression"
TOGETHER, END_TO_END = "forward + suppression", "end to end"

Stages = dict[str, Callable[[], Any]]


def stages_of(
    path: str | os.PathLike[str], images: Sequence[bytes], *, openvino: bool = False
) -> Stages:
    """Returns the stages of a detector as functions of one batch.

    A Keras model, a TFLite file of kind "raw" and OpenVINO have the stages "forward" and
    "decoding + suppression". A Keras model also has the stage "base network". A SavedModel and the
    other TFLite files include the suppression, so they have the stage "forward + suppression". All
    have the stage "end to end", from encoded images to detections.

    Args:
        path: A `.keras` file, a SavedModel folder or a `.tflite` file.
        images: The encoded images of the batch.
        openvino: Whether to run the file with OpenVINO. It must be a `.tflite` file of kind "raw".

    Returns:
        Name of the stage -> function that processes one batch.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If a package that runs the file is not installed.
        ValueError: If the file is not a detector, or OpenVINO cannot run it.
    """
    path = Path(path)
    if openvino:
        return _openvino_stages(path, images)
    detector = load_detector(path)
    end_to_end: Stages = {END_TO_END: lambda: detector.detect(images)}
    if path.suffix == ".tflite":
        return _tflite_stages(path, images) | end_to_end
    if path.is_dir():
        return _saved_model_stages(path, images) | end_to_end
    return _keras_stages(path, images) | end_to_end


def _keras_stages(path: Path, images: Sequence[bytes]) -> Stages:
    model = load_model(path)
    decoder = DetectionDecoder(model.get_layer("predictions").ssd_config)
    base = keras.Model(model.input, model.get_layer("fc7").output)
    batch = _batch(images, model.get_layer("predictions").ssd_config.image_size)
    forward = tf.function(lambda x: model(x, training=False), autograph=False)
    base_forward = tf.function(lambda x: base(x, training=False), autograph=False)
    decode = tf.function(decoder.__call__, autograph=False)
    predictions = forward(batch)
    return {
        BASE: lambda: base_forward(batch).numpy(),
        FORWARD: lambda: forward(batch).numpy(),
        SUPPRESSION: lambda: decode(predictions)["boxes"].numpy(),
    }


def _saved_model_stages(path: Path, images: Sequence[bytes]) -> Stages:
    loaded = tf.saved_model.load(str(path))
    detect = loaded.signatures["serving_default"]
    size = tuple(detect.structured_input_signature[1]["images"].shape[1:3])
    batch = tf.cast(tf.round(_batch(images, size)), tf.uint8)

    def run() -> Any:
        assert loaded is not None  # keeps the variables alive
        return detect(images=batch)["num_detections"].numpy()

    return {TOGETHER: run}


def _tflite_stages(path: Path, images: Sequence[bytes]) -> Stages:
    from ssd_keras.export.tflite.graphs import RAW
    from ssd_keras.export.tflite.interpreter import TFLiteDetector

    detector = TFLiteDetector(path)
    batch = _batch(images, detector.image_size).numpy()
    if detector.description["kind"] != RAW:
        return {TOGETHER: lambda: [detector.padded(image) for image in batch]}
    outputs = [detector.run(image) for image in batch]
    decoder = described_decoder(detector.description)
    return {
        FORWARD: lambda: [detector.run(image) for image in batch],
        SUPPRESSION: lambda: [_suppressed(decoder, output) for output in outputs],
    }


def _openvino_stages(path: Path, images: Sequence[bytes]) -> Stages:
    from ssd_keras.export.tflite.graphs import RAW
    from ssd_keras.extras import require

    require("openvino", "openvino", "a benchmark of OpenVINO")
    import openvino

    description = tflite_description(path) if path.suffix == ".tflite" else {}
    if description.get("kind") != RAW:
        raise ValueError(f"model {path} must be a .tflite file of kind raw for OpenVINO")
    decoder = described_decoder(description)
    core = openvino.Core()
    model = core.read_model(str(path))
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    size = decoder.config.image_size
    dtype = compiled.input(0).element_type.to_dtype()

    def prepared(image: bytes) -> np.ndarray:
        pixels = warp(image, size).numpy()
        return (np.rint(pixels) if dtype == np.uint8 else pixels).astype(dtype)[None]

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        values = [np.array(value) for value in compiled(image).values()]
        boxes = next(v for v in values if v.shape[-1] == 4)
        scores = next(v for v in values if v is not boxes)
        return {"boxes": boxes, "scores": scores}

    batch = [prepared(image) for image in images]
    outputs = [run(image) for image in batch]
    return {
        FORWARD: lambda: [run(image) for image in batch],
        SUPPRESSION: lambda: [_suppressed(decoder, output) for output in outputs],
        END_TO_END: lambda: [_suppressed(decoder, run(prepared(image))) for image in images],
    }


def _batch(images: Sequence[bytes], size: int | tuple[int, int]) -> tf.Tensor:
    """Decodes and resizes images to a batch, float32 [B, height, width, 3]."""
    return tf.stack([warp(image, size) for image in images])


def _suppressed(decoder: DetectionDecoder, outputs: dict[str, np.ndarray]) -> Any:
    """Suppresses the raw outputs of one image with TensorFlow's combined suppression."""
    found = tf.image.combined_non_max_suppression(
        outputs["boxes"][:, :, None, :],
        outputs["scores"],
        max_output_size_per_class=decoder.max_detections,
        max_total_size=decoder.max_detections,
        iou_threshold=decoder.iou_threshold,
        score_threshold=decoder.score_threshold,
        clip_boxes=True,
    )
    return unpad(
        {
            "boxes": found.nmsed_boxes,
            "scores": found.nmsed_scores,
            "classes": found.nmsed_classes,
            "num_detections": found.valid_detections,
        }
    )
