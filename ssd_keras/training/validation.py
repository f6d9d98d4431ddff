"""Measures average precision during training, and writes TensorBoard's scalars and pictures.

An epoch of Keras is the span between two checkpoints.
"""

import importlib.util
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from ssd_keras.data.card import read_card
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.drawing import contact_sheet, draw_detections
from ssd_keras.evaluation.coco import coco_average_precision
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.images import decode_image
from ssd_keras.inference.detector import keras_detector
from ssd_keras.inference.record_sets import detect_records
from ssd_keras.training.checkpoint import averaged, iterations
from ssd_keras.training.interruption import Interruption

_PICTURES = 8
_DRAWN_SCORE = 0.3


class Evaluation(keras.callbacks.Callback):
    """Measures average precision on a record set at the end of each epoch of Keras.

    Subclasses compute the metric in `measure`.

    Args:
        model: The model that is trained. If its optimizer keeps moving averages of the weights
            (`Recipe.ema`), the averages are evaluated.
        records: Folder of the record set.
        batch_size: Images per batch.
        interruption: Signals that it notes stop the evaluation, which then has no result. None if
            signals are not caught.

    Attributes:
        detections: The detections of each image in the last evaluation; empty without a result.
    """

    def __init__(
        self,
        model: keras.Model,
        records: str | os.PathLike[str],
        batch_size: int,
        interruption: Interruption | None = None,
    ) -> None:
        super().__init__()
        self.detector = keras_detector(model)
        self.records = records
        self.batch_size = batch_size
        self.detections: list[dict[str, np.ndarray]] = []
        self._evaluated = model
        self._interruption = interruption or Interruption()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the average precision to the logs."""

        def measure() -> None:
            with averaged(self._evaluated):
                found, samples, _ = detect_records(self.detector, self.records, self.batch_size)
            self.detections = found
            if logs is not None:
                logs.update(self.measure(found, samples))

        self.detections = []
        self._interruption.attempt(measure)

    def measure(
        self, detections: Sequence[dict[str, np.ndarray]], samples: Sequence[Sample]
    ) -> dict[str, float]:
        """Computes the values to add to the logs.

        Args:
            detections: The detections of each image.
            samples: The ground truth of each image, in the same order.

        Returns:
            Name -> value. `val_mean_ap` selects the best checkpoint.
        """
        raise NotImplementedError


class VOCEvaluation(Evaluation):
    """Adds `val_mean_ap`, the mean 11-point VOC AP, to the logs; see `Evaluation`."""

    def measure(
        self, detections: Sequence[dict[str, np.ndarray]], samples: Sequence[Sample]
    ) -> dict[str, float]:
        """Computes VOC's mean 11-point AP."""
        result = voc_average_precision(detections, samples, read_card(self.records).labels)
        return {"val_mean_ap": result.mean_ap_11_point}


class VOCAreaEvaluation(VOCEvaluation):
    """Adds `val_mean_ap`, the mean area under the precision-recall curves, to the logs.

    VOC2010 and later and ILSVRC DET use this metric.
    """

    def measure(
        self, detections: Sequence[dict[str, np.ndarray]], samples: Sequence[Sample]
    ) -> dict[str, float]:
        """Computes VOC's mean area AP."""
        result = voc_average_precision(detections, samples, read_card(self.records).labels)
        return {"val_mean_ap": result.mean_ap_area}


class COCOEvaluation(Evaluation):
    """Adds COCO's AP to the logs; see `Evaluation`.

    The names are `val_mean_ap` (IoU 0.50:0.95), `val_ap50` and `val_ap75`.
    """

    def measure(
        self, detections: Sequence[dict[str, np.ndarray]], samples: Sequence[Sample]
    ) -> dict[str, float]:
        """Computes COCO's AP, AP50 and AP75."""
        labels = read_card(self.records).labels
        found = coco_average_precision(detections, samples, labels).statistics
        return {
            "val_mean_ap": found["AP"],
            "val_ap50": found["AP50"],
            "val_ap75": found["AP75"],
        }


EVALUATIONS = {"voc": VOCEvaluation, "voc_area": VOCAreaEvaluation, "coco": COCOEvaluation}


class Board(keras.callbacks.Callback):
    """Writes the logs of each epoch of Keras, and pictures with detections, for TensorBoard.

    Args:
        folder: Folder of the event files.
        evaluation: The evaluation whose detections are drawn on its first images. None writes no
            pictures.
    """

    def __init__(self, folder: Path, evaluation: Evaluation | None = None) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(folder))
        self._evaluation = evaluation

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the events."""
        step = iterations(self.model)
        with self._writer.as_default():
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value, step)
            if self._evaluation is not None and self._evaluation.detections:
                sheet = _contact_sheet(self._evaluation)
                tf.summary.image("detections", sheet[None], step)
        self._writer.flush()


def tensorboard(folder: Path, evaluation: Evaluation | None) -> list[keras.callbacks.Callback]:
    """Creates the callback for TensorBoard.

    Args:
        folder: Folder of the event files.
        evaluation: See `Board`.

    Returns:
        The callback; an empty list, after a logged warning, if TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        logging.warning(
            "no logs are written for TensorBoard, which is missing: pip install 'ssd-keras[plots]'"
        )
        return []
    return [Board(folder, evaluation)]


def _contact_sheet(evaluation: Evaluation) -> np.ndarray:
    """Draws the first images of the record set with their detections, uint8 [H, W, 3]."""
    pictures = []
    labels = read_card(evaluation.records).labels
    samples = itertools.islice(read_samples(evaluation.records), _PICTURES)
    for sample, found in zip(samples, evaluation.detections, strict=False):
        shown = found["scores"] >= _DRAWN_SCORE
        boxes, classes, scores = (found[name][shown] for name in ("boxes", "classes", "scores"))
        image = decode_image(sample.image).numpy()
        pictures.append(draw_detections(image, boxes, classes, labels, scores))
    return np.asarray(contact_sheet(pictures))
