"""Runs the TFLite files of all kinds, through LiteRT's interpreter, from pictures to detections."""

import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from ssd_keras.detections import Detections, unpad
from ssd_keras.export.descriptions import described_decoder, tflite_description
from ssd_keras.export.tflite.graphs import MEDIAPIPE, RAW, suppress
from ssd_keras.extras import require
from ssd_keras.native_log import TFLITE, without_lines


class TFLiteDetector:
    """A detector in a TFLite file.

    Attributes:
        description: What `tflite_description` gives.
        image_size: S, the edge of the images that the file takes.

    Args:
        path: The file, made by `export_tflite`.
        threads: Of the interpreter.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no file of `export_tflite`.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 2) -> None:
        self.description = tflite_description(path)
        self._decoder = described_decoder(self.description)
        self.image_size: int = self._decoder.config.image_size
        require("ai_edge_litert", "tflite", f"the TFLite file {path}")
        from ai_edge_litert.interpreter import Interpreter

        with without_lines(TFLITE):
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        self._signature = self._interpreter.get_signature_runner()
        details = self._signature.get_input_details()["image"]
        self._shape = tuple(details["shape"][1:].tolist())
        self._dtype = details["dtype"]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """The file's own outputs by name, for one image [S, S, 3], RGB 0..255.

        Raises:
            ValueError: If the image has another shape.
        """
        if image.shape != self._shape:
            raise ValueError(f"image has shape {image.shape}, but the detector takes {self._shape}")
        if self._dtype == np.uint8:
            image = np.clip(np.rint(image), 0, 255)
        outputs: dict[str, np.ndarray] = self._signature(image=image[None].astype(self._dtype))
        return outputs

    def __call__(self, images: Iterable[np.ndarray]) -> list[Detections]:
        """Detections of images [S, S, 3], RGB 0..255; boxes `yxyx`, classes from 1."""
        return [unpad(self.padded(image))[0] for image in images]

    def padded(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Detections of one image [S, S, 3], as the signatures of the SavedModel give them."""
        outputs = self.run(image)
        kind = self.description["kind"]
        if kind == RAW:
            tensors = {name: tf.constant(value) for name, value in outputs.items()}
            found = suppress(self._decoder, **tensors)
            return {name: value.numpy() for name, value in found.items()}
        if kind == MEDIAPIPE:
            return {
                "boxes": outputs["location"],
                "scores": outputs["score"],
                "classes": outputs["category"].astype(np.int32) + 1,
                "num_detections": outputs["count"],
            }
        return outputs
