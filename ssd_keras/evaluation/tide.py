"""The AP that a detector would gain if one kind of error were corrected, as TIDE defines it.

TIDE is D. Bolya, S. Foley, J. Hays and J. Hoffman, "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020.
"""

import dataclasses

import numpy as np

from ssd_keras.evaluation.inputs import mean_of_defined
from ssd_keras.evaluation.matches import MatchTable, ranking
from ssd_keras.evaluation.voc import class_precision

BACKGROUND_IOU = 0.1
# TIDE's kinds of errors, in the order in which a detection is tested for them. "missed" is a kind
# of objects.
TIDE_KINDS = ("localization", "class", "duplicate", "background", "both", "missed")
# The gains if all false positives, or all false negatives, were removed.
TIDE_TOTALS = ("false positives", "false negatives")
_TRUE = -1  # kind of a true positive


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """All counted detections of a set in descending order of score.

    Attributes:
        class_id: int [D].
        kind: int [D], the position in `TIDE_KINDS`, or -1 for a true positive.
        target: int [D], the object that a detection finds if its error is corrected, or -1.
        found: bool [number of objects], whether an object has a true positive.
    """

    class_id: np.ndarray
    kind: np.ndarray
    target: np.ndarray
    found: np.ndarray


def tide_gains(table: MatchTable, iou_threshold: float = 0.5) -> dict[str, float]:
    """Computes the gain in mean AP if only the errors of one kind were corrected, for each kind.

    The kind of a false positive is given by the first rule that holds. The rules use its largest
    IoU with an object of its own class and with an object of another class; t is `iou_threshold`:

    - localization: its IoU with an object of its class is from 0.1 to t. Correction: it finds this
      object.
    - class: its IoU with an object of another class is at least t. Correction: it gets this class.
    - duplicate: its object has a detection of higher score. Correction: it is removed.
    - background: its IoU with every object is at most 0.1. Correction: it is removed.
    - both: all others, with wrong class and wrong place. Correction: they are removed.

    If several detections of the kinds localization or class belong to one object, the one of
    highest score is corrected and the others are removed. If the object has a true positive, they
    are all removed. The kind "missed" is the objects that have neither a true positive nor a
    detection of the kinds localization or class. Correction: they are not counted as objects.
    "false positives" removes all false positives, and "false negatives" removes all objects without
    a true positive.

    The AP is the area AP that `voc_average_precision` computes, with its rule for true positives.
    TIDE itself matches and averages as COCO does.

    Args:
        table: From `match_table`.
        iou_threshold: t, the minimum IoU of a true positive.

    Returns:
        Kind of error -> mean AP with these errors corrected, minus mean AP. The keys are
        `TIDE_KINDS` and `TIDE_TOTALS`.

    Source: TIDE, sections 2.1 and 2.2; `quantify.py`, `main_errors.py` of github.com/dbolya/tide.
    """
    judged = _judge(table, iou_threshold)
    counts = np.array([table.num_objects(k) for k in range(1 + len(table.labels))])
    base = _mean_ap(table, judged.class_id, judged.kind == _TRUE, counts)
    gains = {}
    best = _first_of_each(judged.target)
    for number, kind in enumerate(TIDE_KINDS[:-1]):
        of_kind = judged.kind == number
        fixed = of_kind & best
        kept = ~of_kind | fixed
        class_id = judged.class_id.copy()
        if kind == "class":
            class_id[fixed] = table.objects["class_id"][judged.target[fixed]]
        true = (judged.kind == _TRUE) | fixed
        gains[kind] = _mean_ap(table, class_id[kept], true[kept], counts) - base
    counted = ~table.objects["difficult"]
    usable = judged.found.copy()
    usable[judged.target[judged.target >= 0]] = True
    for kind, lost in (("missed", ~usable), ("false negatives", ~judged.found)):
        fewer = np.bincount(table.objects["class_id"][lost & counted], minlength=len(counts))
        true = judged.kind == _TRUE
        gains[kind] = _mean_ap(table, judged.class_id, true, counts - fewer, counts) - base
    true = judged.kind == _TRUE
    gains["false positives"] = _mean_ap(table, judged.class_id[true], true[true], counts) - base
    return {kind: gains[kind] for kind in (*TIDE_KINDS, *TIDE_TOTALS)}


def tide_counts(table: MatchTable, iou_threshold: float = 0.5) -> dict[str, int]:
    """Counts the errors of each kind; see `tide_gains`.

    Args:
        table: From `match_table`.
        iou_threshold: Minimum IoU of a true positive.

    Returns:
        Kind of error -> number of detections, or of objects for "missed".
    """
    judged = _judge(table, iou_threshold)
    counts = {kind: int(np.sum(judged.kind == k)) for k, kind in enumerate(TIDE_KINDS[:-1])}
    usable = judged.found.copy()
    usable[judged.target[judged.target >= 0]] = True
    return counts | {"missed": int(np.sum(~usable & ~table.objects["difficult"]))}


def _judge(table: MatchTable, iou_threshold: float) -> _Judged:
    rows = np.asarray(table.detections)
    true, ignored = np.zeros((2, len(rows)), bool)
    for class_id in range(1, 1 + len(table.labels)):
        ranked = ranking(table, class_id, iou_threshold)
        true[ranked.numbers] = ranked.true_positive
        ignored[ranked.numbers] = ranked.ignored
    found = np.zeros(len(table.objects), bool)
    found[rows["same_object"][true]] = True

    same = rows["same_iou"]
    similar_is_best = rows["similar_iou"] >= rows["other_iou"]
    wrong = np.where(similar_is_best, rows["similar_iou"], rows["other_iou"])
    wrong_object = np.where(similar_is_best, rows["similar_object"], rows["other_object"])
    rules = [
        true,
        (same >= BACKGROUND_IOU) & (same < iou_threshold),
        wrong >= iou_threshold,
        same >= iou_threshold,
        np.maximum(same, wrong) <= BACKGROUND_IOU,
    ]
    kind = np.select(rules, [_TRUE, 0, 1, 2, 3], default=TIDE_KINDS.index("both"))
    target = np.select([kind == 0, kind == 1], [rows["same_object"], wrong_object], default=-1)
    taken = (target >= 0) & (found | table.objects["difficult"])[target] if len(found) else False
    target = np.where(taken, -1, target)
    order = np.argsort(-rows["score"], kind="stable")
    order = order[~ignored[order]]
    return _Judged(rows["class_id"][order], kind[order], target[order], found)


def _first_of_each(target: np.ndarray) -> np.ndarray:
    """Returns bool [D]: the first detection of each target."""
    first = np.zeros(len(target), bool)
    numbers = np.flatnonzero(target >= 0)
    first[numbers[np.unique(target[numbers], return_index=True)[1]]] = True
    return first


def _mean_ap(
    table: MatchTable,
    class_id: np.ndarray,
    true: np.ndarray,
    counts: np.ndarray,
    original: np.ndarray | None = None,
) -> float:
    """Returns the mean area AP of the classes that have objects.

    A class whose objects are all removed (0 in `counts`, but not in `original`) has the AP 0, as in
    TIDE.
    """
    values = []
    for k, label in enumerate(table.labels, start=1):
        mine = class_id == k
        value = class_precision(label, true[mine], int(counts[k]), int(mine.sum())).ap_area
        if original is not None and counts[k] == 0 and original[k] > 0:
            value = 0.0
        values.append(value)
    return mean_of_defined(values)
