import numpy as np
import pytest

from ssd_keras.evaluation.matches import match_table
from ssd_keras.evaluation.sensitivity import (
    aspect_ratio,
    box_area,
    calibration,
    mean_normalized_ap,
    normalized_ap,
    object_groups,
    recall_by_map,
    responsible_maps,
)
from ssd_keras.matching import match
from ssd_keras.tiling import default_boxes
from tests.evaluation.test_voc import detections, sample
from tests.tiny import TINY


def test_groups_of_ten_values():
    """10 %, 20 %, 40 %, 20 %, 10 % of ten values."""
    assert object_groups(np.arange(10)).tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 3, 4]
    assert object_groups(np.arange(10)[::-1]).tolist() == [4, 3, 3, 2, 2, 2, 2, 1, 1, 0]
    assert object_groups(np.array([])).tolist() == []
    assert object_groups(np.array([5.0])).tolist() == [0]


def test_area_and_aspect_ratio():
    table = match_table([detections([], [])], [sample([[10, 20, 30, 60]])], ["cat"])
    assert box_area(table.objects).tolist() == [20 * 40]
    assert aspect_ratio(table.objects).tolist() == [2]


def test_normalized_ap_by_hand():
    """Four cats in two groups. Group 0 is found first, then a false positive, then one of group 1.

    N = 4, as cat is the only class. Group 0: one of two found, recall 1/2, precision
    1/2 * 4 / (1/2 * 4 + 0) = 1, so 1/2 * 1. Group 1: recall 1/2 after one false positive,
    precision 2 / (2 + 1) = 2/3, so 1/2 * 2/3.
    """
    truth = sample([[0, 0, 9, 9], [20, 0, 29, 9], [0, 50, 29, 79], [60, 50, 89, 79]])
    found = detections([[0, 0, 9, 9], [90, 0, 99, 9], [0, 50, 29, 79]], [0.9, 0.8, 0.7])
    table = match_table([found], [truth], ["cat"])
    values = normalized_ap(table, 1, np.array([0, 0, 1, 1]), num_groups=3)
    np.testing.assert_allclose(values, [1 / 2, 1 / 3, np.nan])


def test_normalized_ap_does_not_depend_on_how_many_there_are():
    """A group of twice the size with twice as many found objects has the same AP_N."""
    one = sample([[0, 0, 9, 9], [50, 50, 59, 59]])
    found = detections([[90, 0, 99, 9], [0, 0, 9, 9], [50, 50, 59, 59]], [0.9, 0.8, 0.7])
    table = match_table([found], [one], ["cat"])
    both = normalized_ap(table, 1, np.array([0, 0]), num_groups=1)
    apart = normalized_ap(table, 1, np.array([0, 1]), num_groups=2)
    # r N / (r N + f) with N = 2 and one false positive, at full recall: 2/3 in all cases
    np.testing.assert_allclose([*both, *apart], 2 / 3)


def test_mean_normalized_ap_skips_groups_without_objects():
    truth = sample([[0, 0, 9, 9]])
    table = match_table([detections([[0, 0, 9, 9]], [0.9])], [truth], ["cat", "dog"])
    values = mean_normalized_ap(table, box_area(table.objects))
    np.testing.assert_allclose(values, [1, np.nan, np.nan, np.nan, np.nan])


def test_responsible_map_is_that_of_the_best_default_box():
    rng = np.random.default_rng(0)
    corners = rng.random((20, 2)) * 0.6
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.4, (20, 2))], axis=1) * 64
    truth = sample(boxes, size=(64, 64))
    table = match_table([detections([], [])], [truth], ["cat"])
    maps = responsible_maps(table.objects, TINY)
    sizes = [m.size**2 * m.boxes_per_location for m in TINY.feature_maps]
    map_of_box = np.repeat(np.arange(4), sizes)
    for k, number in enumerate(maps):
        # a single object is matched to its best default box, at least
        row = np.concatenate([truth.boxes[k], [1]]).astype(np.float32)[None, None]
        matched = np.flatnonzero(match(row, default_boxes(TINY))[0].numpy() >= 0)
        assert number in map_of_box[matched]
    assert len(set(maps.tolist())) > 1


def test_recall_by_map_counts_found_objects():
    truth = sample([[0, 0, 8, 8], [5, 5, 60, 60]], difficult=[False, False], size=(64, 64))
    found = detections([[5, 5, 60, 60], [0, 0, 8, 8]], [0.9, 0.4], size=(64, 64))
    table = match_table([found], [truth], ["cat"])
    totals, hits = recall_by_map(table, TINY)
    assert totals.sum() == 2
    assert hits.sum() == 1  # the small one is below the score threshold
    assert totals[0].sum() == 1
    assert hits[0].sum() == 0
    _, hits = recall_by_map(table, TINY, score_threshold=0.3)
    assert hits.sum() == 2


def test_calibration_by_hand():
    """Scores .95 (true), .93 (false) and .15 (true): errors .44 and .85, weights 2/3 and 1/3."""
    truth = sample([[0, 0, 9, 9], [50, 50, 59, 59]])
    found = detections([[0, 0, 9, 9], [90, 0, 99, 9], [50, 50, 59, 59]], [0.95, 0.93, 0.15])
    bins, error = calibration(match_table([found], [truth], ["cat"]))
    assert [b.count for b in bins] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (bins[9].mean_score, bins[9].precision) == (pytest.approx(0.94), 0.5)
    assert error == pytest.approx(2 / 3 * 0.44 + 1 / 3 * 0.85)


def test_a_score_of_one_is_in_the_last_bin():
    bins, error = calibration(
        match_table([detections([[0, 0, 9, 9]], [1.0])], [sample([[0, 0, 9, 9]])], ["cat"])
    )
    assert bins[9].count == 1
    assert error == 0


def test_nothing_at_all():
    table = match_table([], [], ["cat"])
    assert calibration(table)[1] == 0
    assert np.isnan(mean_normalized_ap(table, box_area(table.objects))).all()
    totals, _ = recall_by_map(table, TINY)
    assert totals.sum() == 0
