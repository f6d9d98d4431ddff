"""Measures how well the detections of an exported file agree with those of the Keras model.

Detections cannot be compared one by one. Of two overlapping boxes with nearly equal scores either
may suppress the other, so two detectors that differ in the last bit may keep different boxes.
`compare` therefore checks three things:

- Every detection of the export is close to a candidate of the Keras model. The candidates are the
  boxes and scores of the model before suppression.
- Every clear detection of one side has a counterpart on the other side: the same detection, or a
  detection of higher score that overlaps it and has suppressed it.
- No clear detection of the export overlaps another one of higher score that should have suppressed
  it.

P is the number of default boxes, C the number of classes without the background, and N the number
of detections of an image.
"""

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np

from ssd_keras.boxes import pairwise_iou
from ssd_keras.detections import DetectionDecoder, Detections, unpad

# The box that suppressed a detection may differ slightly between the two sides. An IoU above this
# fraction of the IoU threshold therefore counts as suppression.
_SAME_PLACE = 0.9
# Rounding may increase the IoU of two kept detections above the threshold by this value.
_IOU_ROUNDING = 1e-3


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The outputs of the Keras model for one image.

    Attributes:
        boxes: The boxes before suppression, float32 [P, 4], `yxyx`, not clipped to the image.
        scores: The scores before suppression, float32 [P, C].
        detections: The detections after suppression.
    """

    boxes: np.ndarray
    scores: np.ndarray
    detections: Detections


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """Differences between an exported detector and the Keras model on a set of images.

    A detection is clear if its score exceeds the cut-off of the other side by more than the
    tolerance. The other side then cannot have dropped it because of its score; see `compare`.

    Attributes:
        images: Number of images.
        detections: Number of clear detections of the Keras model.
        unmatched: Number of clear detections of either side without a counterpart on the other
            side, plus clear detections of the export that the export should have suppressed.
        far: Number of detections of the export, clear or not, whose box or score differs from
            every candidate of the Keras model by more than the tolerance.
        box_difference: Largest difference between a coordinate of a detection and of its nearest
            candidate, as a fraction of the image.
        score_difference: Largest difference between the scores of the same pairs.
    """

    images: int
    detections: int
    unmatched: int
    far: int
    box_difference: float
    score_difference: float

    @property
    def unmatched_share(self) -> float:
        """Number of unmatched detections divided by the clear detections of the Keras model."""
        return self.unmatched / max(self.detections, 1)

    @property
    def far_share(self) -> float:
        """Number of far detections divided by the clear detections of the Keras model."""
        return self.far / max(self.detections, 1)

    @property
    def is_empty(self) -> bool:
        """Whether there was no clear detection, so that the comparison has no result."""
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
    """The largest differences that count as agreement.

    Attributes:
        box_difference: Allowed difference of a coordinate, as a fraction of the image.
        score_difference: Allowed difference of a score.
        unmatched_share: Largest allowed `Agreement.unmatched_share`.
        far_share: Largest allowed `Agreement.far_share`. It is above 0 for 8-bit files, where a few
            detections of low score differ from every candidate.
    """

    box_difference: float
    score_difference: float
    unmatched_share: float
    far_share: float = 0.0

    def covers(self, agreement: Agreement) -> bool:
        """Checks whether an agreement is within the tolerance.

        Args:
            agreement: From `compare` with this tolerance.

        Returns:
            False if nothing was compared, if a difference is NaN or infinite, or if a share
            exceeds its limit; True otherwise.
        """
        return (
            not agreement.is_empty
            and math.isfinite(agreement.box_difference + agreement.score_difference)
            and agreement.unmatched_share <= self.unmatched_share
            and agreement.far_share <= self.far_share
        )


def reference(model: keras.Model, decoder: DetectionDecoder, images: np.ndarray) -> list[Reference]:
    """Runs the Keras model on images, one at a time.

    Args:
        model: A model of `ssd_vgg16`.
        decoder: The decoder of its predictions.
        images: float32 [B, S, S, 3], RGB 0..255.

    Returns:
        The outputs for each image.
    """
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
    """Compares the detections of an exported file with the outputs of the Keras model.

    Each detection of the export is paired with the nearest candidate of its class, in box and
    score. A detection that the other side lacks counts only if it is clear: its score must be above
    the cut-off of the other side by more than the tolerance. The cut-off is the score threshold, or
    the lowest kept score if the image has the maximum number of detections.

    Args:
        references: The outputs of the Keras model, one per image.
        found: The detections of the exported file on the same images, in the same order.
        decoder: The decoder of the Keras model; its thresholds must be those of the file.
        tolerance: The allowed differences.

    Returns:
        The agreement. A NaN in a detection counts as an infinite difference.

    Raises:
        ValueError: If `references` and `found` differ in length.
    """
    detections = unmatched = far = 0
    box_difference = score_difference = 0.0
    for expected, actual in zip(references, found, strict=True):
        nearest, box_off, score_off = _nearest_candidates(expected, actual)
        box_difference = max(box_difference, box_off.max(initial=0.0))
        score_difference = max(score_difference, score_off.max(initial=0.0))
        beyond = (box_off > tolerance.box_difference) | (score_off > tolerance.score_difference)
        far += int(np.sum(beyond))
        clear = _is_clear(expected.detections, actual, decoder, tolerance)
        clear_found = _is_clear(actual, expected.detections, decoder, tolerance)
        missing = ~_is_matched(expected.detections, actual, decoder, tolerance)
        surplus = ~_is_matched(actual, expected.detections, decoder, tolerance)
        surplus |= _should_be_suppressed(actual, nearest, decoder, tolerance)
        detections += int(np.sum(clear))
        unmatched += int(np.sum(clear & missing) + np.sum(clear_found & surplus))
    differences = float(box_difference), float(score_difference)
    return Agreement(len(references), detections, unmatched, far, *differences)


def _nearest_candidates(
    expected: Reference, actual: Detections
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the nearest candidate of each detection.

    Returns:
        The boxes of the candidates, float32 [N, 4], and their differences from the detections in
        box and in score, float64 [N] each.
    """
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


def _is_clear(
    a: Detections, b: Detections, decoder: DetectionDecoder, tolerance: Tolerance
) -> np.ndarray:
    """Marks the detections of `a` that `b` cannot have dropped because of their score, bool [N]."""
    full = len(b["scores"]) >= decoder.max_detections
    cutoff = float(b["scores"].min()) if full else decoder.score_threshold
    clear: np.ndarray = a["scores"] > cutoff + tolerance.score_difference
    return clear


def _is_matched(
    a: Detections, b: Detections, decoder: DetectionDecoder, tolerance: Tolerance
) -> np.ndarray:
    """Marks the detections of `a` that have a counterpart in `b`, bool [N].

    A counterpart has the same class, almost the same place, and at least the same score, within the
    tolerance.
    """
    overlap = pairwise_iou(np.float32(a["boxes"]), np.float32(b["boxes"])).numpy()
    # A box outside the image is clipped to zero area, so its IoU is 0: compare its coordinates.
    distance = np.abs(a["boxes"][:, None] - b["boxes"]).max(axis=-1, initial=0)
    same_place = overlap > _SAME_PLACE * decoder.iou_threshold
    same_place |= distance <= tolerance.box_difference
    as_good = a["scores"][:, None] <= b["scores"] + tolerance.score_difference
    pairs = same_place & as_good & np.equal.outer(a["classes"], b["classes"])
    matched: np.ndarray = pairs.any(axis=1)
    return matched


def _should_be_suppressed(
    found: Detections, nearest: np.ndarray, decoder: DetectionDecoder, tolerance: Tolerance
) -> np.ndarray:
    """Marks the detections whose IoU with a better one of their class is too large, bool [N].

    The decoder applies suppression before it clips boxes to the image. If an edge is at the border
    of the image, its unclipped position is therefore taken from the nearest candidate.
    """
    at_border = (found["boxes"] <= 0) | (found["boxes"] >= 1)
    boxes = np.float32(np.where(at_border, nearest, found["boxes"]))
    limit = decoder.iou_threshold + _IOU_ROUNDING + 2 * tolerance.box_difference
    pairs = pairwise_iou(boxes, boxes).numpy() > limit
    pairs &= np.equal.outer(found["classes"], found["classes"])
    suppressed: np.ndarray = np.tril(pairs, k=-1).any(axis=1)
    return suppressed
