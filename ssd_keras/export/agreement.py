"""Does an exported detector find what the Keras model finds?

Two boxes of nearly equal score may suppress each other either way, so that detectors which differ
in the last bit only can keep different boxes. Detections are therefore paired with what the
reference had to choose from, and held to the rules of suppression itself: of what one side keeps
the other keeps the same or what suppresses it, and what is kept suppresses nothing else kept.
"""

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np

from ssd_keras.boxes import pairwise_iou
from ssd_keras.detections import DetectionDecoder, Detections, unpad

# What suppresses a box on one side overlaps it by a little less than the IoU threshold on the
# other. Detections of one side overlap by no more than the threshold, but for rounding.
_SAME_PLACE, _IOU_ROUNDING = 0.9, 1e-3


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the Keras model makes of one image.

    Attributes:
        boxes: float32 [P, 4], `yxyx` not clipped to the image, before suppression.
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
        detections: Detections of the Keras model, in all images, that are so clear of what is
            left out that the other must have them.
        unmatched: Clear detections of either where the other has none of that class and score,
            and detections that another one of the export should have suppressed.
        far: Detections of the export that differ by more than the tolerance, in box or score, from
            all that the Keras model had to choose from.
        box_difference: Largest difference of a coordinate from the Keras model's box, as a
            fraction of the image.
        score_difference: Largest difference of a score.
    """

    images: int
    detections: int
    unmatched: int
    far: int
    box_difference: float
    score_difference: float

    @property
    def unmatched_share(self) -> float:
        """Unmatched detections for each clear detection of the Keras model."""
        return self.unmatched / max(self.detections, 1)

    @property
    def far_share(self) -> float:
        """Far detections for each clear detection of the Keras model."""
        return self.far / max(self.detections, 1)

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to compare, so that nothing is proven."""
        return self.detections == self.unmatched == 0

    def __str__(self) -> str:
        if self.is_empty:
            return f"nothing to compare: no clear detection in {self.images} images"
        return (
            f"{self.detections} detections in {self.images} images, {self.unmatched} unmatched, "
            f"{self.far} far; largest difference {self.box_difference:.1e} in boxes and "
            f"{self.score_difference:.1e} in scores"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as agreement.

    Attributes:
        box_difference: How far a coordinate may be from the Keras model's, as a fraction of the
            image.
        score_difference: How far a score may be.
        unmatched_share: Largest `Agreement.unmatched_share`.
        far_share: Largest `Agreement.far_share`. Above 0 for 8 bits: now and then a weak detection
            is elsewhere, so that the largest difference of many says nothing about the others.
    """

    box_difference: float
    score_difference: float
    unmatched_share: float
    far_share: float = 0.0

    def covers(self, agreement: Agreement) -> bool:
        """Whether something was compared, all of it numbers, and neither share is larger."""
        return (
            not agreement.is_empty
            and math.isfinite(agreement.box_difference + agreement.score_difference)
            and agreement.unmatched_share <= self.unmatched_share
            and agreement.far_share <= self.far_share
        )


def reference(model: keras.Model, decoder: DetectionDecoder, images: np.ndarray) -> list[Reference]:
    """What the Keras model makes of images, float32 [B, S, S, 3], one at a time."""
    results = []
    for image in images:
        predictions = model(image[None], training=False)
        boxes, scores = decoder.candidates(predictions)
        (detections,) = unpad(decoder(predictions))
        results.append(Reference(boxes.numpy()[0], scores.numpy()[0], detections))
    return results


def compare(
    references: Sequence[Reference],
    found: Sequence[Detections],
    decoder: DetectionDecoder,
    tolerance: Tolerance,
) -> Agreement:
    """Compares an exported detector's detections with the Keras model's.

    A detection is paired with the candidate of the reference, of its class, that is nearest in box
    and score. One that the other side lacks is excused unless it is clear: its score above the
    least that could have been kept there (the score threshold, or a full image's worst score) by
    more than the tolerance.

    Args:
        references: Of each image.
        found: The exported detector's, of the same images.
        decoder: The reference's, for its thresholds.
        tolerance: The differences of boxes and scores to be expected.

    Returns:
        The agreement; NaN in a detection shows as a difference of infinity.
    """
    detections = unmatched = far = 0
    box_difference = score_difference = 0.0
    for expected, actual in zip(references, found, strict=True):
        nearest, box_off, score_off = _nearest_candidates(expected, actual)
        box_difference = max(box_difference, box_off.max(initial=0.0))
        score_difference = max(score_difference, score_off.max(initial=0.0))
        beyond = (box_off > tolerance.box_difference) | (score_off > tolerance.score_difference)
        far += int(np.sum(beyond))
        clear = _clear(expected.detections, actual, decoder, tolerance)
        clear_found = _clear(actual, expected.detections, decoder, tolerance)
        missing = ~_there(expected.detections, actual, decoder, tolerance)
        surplus = ~_there(actual, expected.detections, decoder, tolerance)
        surplus |= _should_be_suppressed(actual, nearest, decoder, tolerance)
        detections += int(np.sum(clear))
        unmatched += int(np.sum(clear & missing) + np.sum(clear_found & surplus))
    differences = float(box_difference), float(score_difference)
    return Agreement(len(references), detections, unmatched, far, *differences)


def _nearest_candidates(
    expected: Reference, actual: Detections
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The candidate nearest to each detection, [N, 4], how far its box is, [N], and its score."""
    count = len(actual["scores"])
    nearest, clipped = np.zeros((count, 4), np.float32), np.clip(expected.boxes, 0, 1)
    boxes, scores = np.zeros(count), np.zeros(count)
    for i, box in enumerate(actual["boxes"]):
        box_off = np.abs(clipped - box).max(axis=1)  # [P]
        class_scores = expected.scores[:, int(actual["classes"][i]) - 1]
        score_off = np.abs(class_scores - actual["scores"][i])  # [P]
        best = np.argmin(np.maximum(box_off, score_off))
        nearest[i], boxes[i], scores[i] = expected.boxes[best], box_off[best], score_off[best]
    return nearest, np.nan_to_num(boxes, nan=np.inf), np.nan_to_num(scores, nan=np.inf)


def _clear(
    a: Detections, b: Detections, decoder: DetectionDecoder, tolerance: Tolerance
) -> np.ndarray:
    """Which detections of `a` are so good that `b` cannot have left them out for their score."""
    full = len(b["scores"]) >= decoder.max_detections
    least = float(b["scores"].min()) if full else decoder.score_threshold
    clear: np.ndarray = a["scores"] > least + tolerance.score_difference
    return clear


def _there(
    a: Detections, b: Detections, decoder: DetectionDecoder, tolerance: Tolerance
) -> np.ndarray:
    """Which detections of `a` have in `b` the same, or a better one that suppressed them there."""
    overlap = pairwise_iou(np.float32(a["boxes"]), np.float32(b["boxes"])).numpy()
    # A box outside the image is clipped to nothing, which overlaps nothing.
    distance = np.abs(a["boxes"][:, None] - b["boxes"]).max(axis=-1, initial=0)
    same_place = overlap > _SAME_PLACE * decoder.iou_threshold
    same_place |= distance <= tolerance.box_difference
    as_good = a["scores"][:, None] <= b["scores"] + tolerance.score_difference
    pairs = same_place & as_good & np.equal.outer(a["classes"], b["classes"])
    there: np.ndarray = pairs.any(axis=1)
    return there


def _should_be_suppressed(
    found: Detections, nearest: np.ndarray, decoder: DetectionDecoder, tolerance: Tolerance
) -> np.ndarray:
    """Which detections overlap a better one of their class by more than the IoU threshold.

    Suppression comes before clipping: an edge at the border is taken from the nearest candidate.
    """
    at_border = (found["boxes"] <= 0) | (found["boxes"] >= 1)
    boxes = np.float32(np.where(at_border, nearest, found["boxes"]))
    most = decoder.iou_threshold + _IOU_ROUNDING + 2 * tolerance.box_difference
    pairs = pairwise_iou(boxes, boxes).numpy() > most
    pairs &= np.equal.outer(found["classes"], found["classes"])
    suppressed: np.ndarray = np.tril(pairs, k=-1).any(axis=1)
    return suppressed
