"""Runs TFLite files of every kind with LiteRT's interpreter."""

import os
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from ssd_keras.detections import Detections, unpad
from ssd_keras.export.descriptions import described_decoder, tflite_description
from ssd_keras.export.tflite.graphs import MEDIAPIPE, RAW, suppress
from ssd_keras.native_log import TFLITE, without_lines


class TFLiteDetector:
    """Runs a TFLite file. Its detections have the same format for all kinds of files.

    Calling the detector with a sequence of images [height, width, 3], RGB 0..255, returns a list
    with the detections of each image: `boxes` float32 [N, 4], `yxyx`, `scores` float32 [N], and
    `classes` int32 [N], starting at 1.

    Args:
        path: The file, made by `export_tflite`.
        threads: Number of threads of the interpreter.

    Attributes:
        description: The description in the file; see `tflite_description`.
        image_size: (height, width) of the input images in pixels.

    Raises:
        FileNotFoundError: If the file does not exist.
        ImportError: If ai_edge_litert is not installed.
        ValueError: If the file was not made by `export_tflite`, or an image of a call has another
            shape.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 2) -> None:
        self.description = tflite_description(path)
        self._decoder = described_decoder(self.description)
        self.image_size: tuple[int, int] = self._decoder.config.input_size
        with without_lines(TFLITE):
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        self._signature = self._interpreter.get_signature_runner()
        details = self._signature.get_input_details()["image"]
        self._shape = tuple(details["shape"][1:].tolist())
        self._dtype = details["dtype"]

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the file on one image and returns its outputs unchanged.

        Args:
            image: [height, width, 3] of any dtype, RGB 0..255; rounded if the file takes uint8.

        Returns:
            The outputs of the file's kind by name; see `graphs.graph`.

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
        """Detects on images; see the class."""
        return [unpad(self.padded(image))[0] for image in images]

    def padded(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Detects on one image and returns padded detections, for all kinds of files.

        Args:
            image: [height, width, 3] of any dtype, RGB 0..255.

        Returns:
            `boxes` float32 [1, K, 4], `scores` float32 [1, K], `classes` int32 [1, K] and
            `num_detections` [1], float32 for kind "mediapipe" and int32 otherwise. For kind
            "detections" the first three names begin with `detection_`. `unpad` accepts both forms.

        Raises:
            ValueError: If the image has another shape.
        """
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
