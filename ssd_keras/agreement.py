"""Does an exported detector find what the Keras model finds?

Two boxes of nearly equal score may suppress each other either way, so that detectors which differ
in the last bit only can keep different boxes. Detections are therefore paired with what the
reference had to choose from, and only what is missing altogether is held against either.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from ssd_keras.boxes import pairwise_iou
from ssd_keras.detections import DetectionDecoder

Detections = dict[str, np.ndarray]  # "boxes" [N, 4] yxyx, "scores" [N], "classes" [N] from 1

_SAME_PLACE_IOU = 0.4  # a box that is suppressed overlaps by 0.45 the one that was kept instead


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the Keras model makes of one image.

    Attributes:
        boxes: float32 [P, 4], `yxyx` clipped to the image, before suppression.
        scores: float32 [P, C], before suppression.
        detections: The detections.
    """

    boxes: np.ndarray
    scores: np.ndarray
    detections: Detections


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """How far an exported detector is from the Keras model on some images.

    Attributes:
        images: Number of images.
        detections: Detections of the Keras model, in all images.
        unmatched: Detections of either where the other has none of that class.
        box_difference: Largest difference of a coordinate from the Keras model's box, as a
            fraction of the image.
        score_difference: Largest difference of a score.
    """

    images: int
    detections: int
    unmatched: int
    box_difference: float
    score_difference: float

    @property
    def unmatched_share(self) -> float:
        """Unmatched detections for each detection of the Keras model."""
        return self.unmatched / max(self.detections, 1)

    def __str__(self) -> str:
        return (
            f"{self.detections} detections in {self.images} images, {self.unmatched} unmatched, "
            f"largest difference {self.box_difference:.1e} in boxes and "
            f"{self.score_difference:.1e} in scores"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest differences that still count as agreement; the fields are `Agreement`'s."""

    box_difference: float
    score_difference: float
    unmatched_share: float

    def covers(self, agreement: Agreement) -> bool:
        """Whether no difference is larger."""
        return all(getattr(agreement, f) <= getattr(self, f) for f in self.__slots__)


def reference(model: keras.Model, decoder: DetectionDecoder, images: np.ndarray) -> list[Reference]:
    """What the Keras model makes of images, float32 [B, S, S, 3], one at a time."""
    results = []
    for image in images:
        predictions = model(image[None], training=False)
        boxes, scores = decoder.decode(predictions)
        (detections,) = unpad(decoder(predictions))
        results.append(Reference(np.clip(boxes[0], 0, 1), scores.numpy()[0], detections))
    return results


def unpad(outputs: dict[str, np.ndarray]) -> list[Detections]:
    """Batched and padded detections to those of each image.

    Args:
        outputs: `boxes` [B, K, 4], `scores` and `classes` [B, K] and `num_detections` [B]; the
            names may begin with `detection_`.
    """
    arrays = {name.removeprefix("detection_"): np.asarray(v) for name, v in outputs.items()}
    return [
        {name: arrays[name][i, : int(n)] for name in ("boxes", "scores", "classes")}
        for i, n in enumerate(arrays["num_detections"])
    ]


def compare(
    references: Sequence[Reference],
    found: Sequence[Detections],
    decoder: DetectionDecoder,
    tolerance: Tolerance,
) -> Agreement:
    """Compares an exported detector's detections with the Keras model's.

    A detection is paired with the candidate of the reference, of its class, that is nearest in box
    and score. One that the other side lacks is excused if its score is within the tolerance of the
    least that could have been kept there: the score threshold, or a full image's worst score.

    Args:
        references: Of each image.
        found: The exported detector's, of the same images.
        decoder: The reference's, for its thresholds.
        tolerance: Its `score_difference` is the difference of scores to be expected.

    Returns:
        The agreement; NaN in a detection shows as a difference of infinity.
    """
    boxes, scores, unmatched = 0.0, 0.0, 0
    for expected, actual in zip(references, found, strict=True):
        for box, score, label in zip(
            *(actual[k] for k in ("boxes", "scores", "classes")), strict=True
        ):
            box_off = np.abs(expected.boxes - box).max(axis=1)  # [P]
            score_off = np.abs(expected.scores[:, int(label) - 1] - score)  # [P]
            nearest = np.argmin(np.maximum(box_off, score_off))
            boxes = max(boxes, float(np.nan_to_num(box_off[nearest], nan=np.inf)))
            scores = max(scores, float(np.nan_to_num(score_off[nearest], nan=np.inf)))
        unmatched += _missing(expected.detections, actual, decoder, tolerance)
        unmatched += _missing(actual, expected.detections, decoder, tolerance)
    detections = sum(len(r.detections["scores"]) for r in references)
    return Agreement(len(references), detections, unmatched, boxes, scores)


def _missing(a: Detections, b: Detections, decoder: DetectionDecoder, tolerance: Tolerance) -> int:
    """How many detections of `a` have none of their class at their place in `b`."""
    full = len(b["scores"]) >= decoder.max_detections
    least = float(b["scores"].min()) if full else decoder.score_threshold
    overlap = pairwise_iou(np.float32(a["boxes"]), np.float32(b["boxes"])).numpy()
    # A box outside the image is clipped to nothing, which overlaps nothing.
    distance = np.abs(a["boxes"][:, None] - b["boxes"]).max(axis=-1, initial=0)
    same_place = (overlap > _SAME_PLACE_IOU) | (distance <= tolerance.box_difference)
    there = (same_place & np.equal.outer(a["classes"], b["classes"])).any(axis=1)
    return int(np.sum(~there & (a["scores"] > least + tolerance.score_difference)))
