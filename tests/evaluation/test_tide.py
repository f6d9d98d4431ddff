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
    """The only cat is detected with a shift (IoU 1/3). Its AP is 0, and 1 without the shift."""
    table = table_of([[0, 10, 19, 29]], [0.9], [1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table) == {**NONE, "localization": 1}
    gains = tide_gains(table)
    assert gains["localization"] == 1
    assert gains["missed"] == 0  # the corrected detection would find the cat
    assert gains["false negatives"] == 0  # the class keeps AP 0 when all its objects are removed


def test_class():
    """The cat is detected as a dog, and the dog is detected with a lower score.

    In order of score the detections of dogs are false and true, so the AP is 1/2. The AP of the cat
    is 0, and the mean is 1/4. With the corrected class, both are 1.
    """
    boxes = [[0, 0, 19, 19], [50, 50, 69, 69]]
    table = table_of(boxes, [0.9, 0.8], [2, 2], boxes, [1, 2])
    assert tide_counts(table) == {**NONE, "class": 1}
    gains = tide_gains(table)
    assert gains["class"] == pytest.approx(3 / 4)
    assert gains["false positives"] == pytest.approx(1 / 4)


def test_duplicate_and_background():
    """Two cats. In order of score: true, duplicate, background, true. AP (1 + 2/4) / 2 = 3/4.

    Without the duplicate, the second true positive has rank 3, and the AP is (1 + 2/3) / 2. The
    same holds without the detection on the background.
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
    """One of two cats is found, so the AP is 1/2. Without the missed cat it would be 1."""
    truth = [[0, 0, 19, 19], [50, 50, 69, 69]]
    table = table_of(truth[:1], [0.9], [1], truth, [1, 1])
    assert tide_counts(table) == {**NONE, "missed": 1}
    gains = tide_gains(table)
    assert gains["missed"] == gains["false negatives"] == pytest.approx(1 / 2)


def test_only_the_best_of_two_is_mended():
    """Two detections are shifted from one cat: the better one is corrected, the other removed."""
    boxes = [[0, 10, 19, 29], [0, 9, 19, 28]]
    table = table_of(boxes, [0.9, 0.8], [1, 1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table)["localization"] == 2
    assert tide_gains(table)["localization"] == 1


def test_an_object_that_is_found_is_not_found_again():
    """In order of score: a shifted detection and an exact one. Without the first, AP is 1."""
    boxes = [[0, 10, 19, 29], [0, 0, 19, 19]]
    table = table_of(boxes, [0.9, 0.8], [1, 1], [[0, 0, 19, 19]], [1])
    assert tide_counts(table) == {**NONE, "localization": 1}
    assert tide_gains(table)["localization"] == pytest.approx(1 / 2)


def test_detections_of_difficult_objects_are_no_errors():
    truth = sample([[0, 0, 19, 19]], [1], [True])
    table = match_table([detections([[0, 0, 19, 19]], [0.9])], [truth], ["cat"])
    assert tide_counts(table) == NONE
    assert np.isnan(tide_gains(table)["missed"])  # no class has objects
