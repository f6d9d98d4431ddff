"""TIDE's errors and gains on cases that can be checked by hand."""

import numpy as np
import pytest

from ssd_keras.evaluation.matches import match_table
from ssd_keras.evaluation.tide import TIDE_KINDS, tide_counts, tide_gains
from tests.evaluation.test_voc import detections, sample

NONE = dict.fromkeys(TIDE_KINDS, 0)


def table_of(boxes, scores, classes, truth_boxes, truth_classes, labels=("cat", "dog")):
    truth = sample(truth_boxes, truth_classes)
    return match_table([detections(boxes, scores, classes)], [truth], labels)


def test_a_perfect_detector_gains_nothing():
    table = table_of([[0, 0, 19, 19]], [0.9], [1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table) == NONE
    assert set(tide_gains(table).values()) == {0.0}


def test_localization():
    """The only cat is detected beside it (IoU 1/3): AP 0, and 1 if it were at its place."""
    table = table_of([[0, 10, 19, 29]], [0.9], [1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table) == {**NONE, "localization": 1}
    gains = tide_gains(table)
    assert gains["localization"] == 1
    assert gains["missed"] == 0  # the mended detection would find it
    assert gains["false negatives"] == 0  # the class keeps AP 0 when all its objects are removed


def test_class():
    """The cat is detected as a dog, the dog as a dog with a lower score.

    dog: the ranks are false, true: AP 1/2; cat: 0; mean 1/4. Mended, both are 1.
    """
    boxes = [[0, 0, 19, 19], [50, 50, 69, 69]]
    table = table_of(boxes, [0.9, 0.8], [2, 2], boxes, [1, 2])
    assert tide_counts(table) == {**NONE, "class": 1}
    gains = tide_gains(table)
    assert gains["class"] == pytest.approx(3 / 4)
    assert gains["false positives"] == pytest.approx(1 / 4)


def test_duplicate_and_background():
    """Two cats. Ranks: true, duplicate, background, true: AP (1 + 2/4) / 2 = 3/4.

    Without the duplicate the second is at rank 3: (1 + 2/3) / 2; without background as well.
    """
    boxes = [[0, 0, 19, 19], [0, 0, 19, 19], [80, 80, 99, 99], [50, 50, 69, 69]]
    table = table_of(boxes, [0.9, 0.8, 0.7, 0.6], [1] * 4, [boxes[0], boxes[3]], [1, 1])
    assert tide_counts(table) == {**NONE, "duplicate": 1, "background": 1}
    gains = tide_gains(table)
    assert gains["duplicate"] == gains["background"] == pytest.approx(5 / 6 - 3 / 4)
    assert gains["false positives"] == pytest.approx(1 / 4)


def test_both_is_wrong_class_and_place():
    table = table_of([[0, 10, 19, 29]], [0.9], [2], [[0, 0, 19, 19]], [1])
    assert tide_counts(table) == {**NONE, "both": 1, "missed": 1}


def test_missed():
    """One of two cats is found: AP 1/2. Without the other it is 1."""
    truth = [[0, 0, 19, 19], [50, 50, 69, 69]]
    table = table_of(truth[:1], [0.9], [1], truth, [1, 1])
    assert tide_counts(table) == {**NONE, "missed": 1}
    gains = tide_gains(table)
    assert gains["missed"] == gains["false negatives"] == pytest.approx(1 / 2)


def test_only_the_best_of_two_is_mended():
    """Two cats beside one object: the better one becomes true, the other is removed."""
    boxes = [[0, 10, 19, 29], [0, 9, 19, 28]]
    table = table_of(boxes, [0.9, 0.8], [1, 1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table)["localization"] == 2
    assert tide_gains(table)["localization"] == 1


def test_an_object_that_is_found_is_not_found_again():
    """Ranks: beside the cat, the cat. Mended, the first is removed: from 1/2 to 1."""
    boxes = [[0, 10, 19, 29], [0, 0, 19, 19]]
    table = table_of(boxes, [0.9, 0.8], [1, 1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table) == {**NONE, "localization": 1}
    assert tide_gains(table)["localization"] == pytest.approx(1 / 2)


def test_detections_of_difficult_objects_are_no_errors():
    truth = sample([[0, 0, 19, 19]], [1], [True])
    table = match_table([detections([[0, 0, 19, 19]], [0.9])], [truth], ["cat"])
    assert tide_counts(table) == NONE
    assert np.isnan(tide_gains(table)["missed"])  # no class has objects
