import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.boxes import pairwise_iou
from ssd_keras.config import SSD300_VOC
from ssd_keras.matching import match
from ssd_keras.tiling import default_boxes
from tests.reference import core as reference

# Four default boxes in a row, each a quarter wide and 1 high.
ROW = np.array([[0, 0.25 * i, 1, 0.25 * i + 0.25] for i in range(4)], np.float32)


def truth(*rows):
    return np.array([rows], np.float32)


def test_every_ground_truth_gets_its_own_box_whatever_the_overlap():
    # 0 .. .05 of the width overlaps box 0 by .2 only: below the threshold, yet matched.
    assert match(truth((0, 0, 1, 0.05, 1)), ROW).numpy().tolist() == [[0, -1, -1, -1]]


@pytest.mark.parametrize(("width", "matched"), [(2.5e-3, 0), (2.5e-6, 0), (2e-7, -1)])
def test_the_smallest_overlap_that_is_matched(width, matched):
    # The IoU with box 0 is 4 times the width: 1e-2, 1e-5, and 8e-7, which is below 1e-6.
    got = match(truth((0, 0, 1, width, 1)), ROW)
    assert got.numpy().tolist() == [[matched, -1, -1, -1]]


def test_the_threshold_adds_more():
    # 0 .. .5 covers boxes 0 and 1: IoU exactly .5 with each, which is enough.
    assert match(truth((0, 0, 1, 0.5, 1)), ROW, 0.5).numpy().tolist() == [[0, 0, -1, -1]]
    assert match(truth((0, 0, 1, 0.5, 1)), ROW, 0.501).numpy().tolist() == [[0, -1, -1, -1]]


def test_greedy_takes_the_larger_overlap_first():
    # Both objects overlap box 1 most, the second one more than the first one. The first object must
    # take box 0. It does not lose its match, as in other implementations, in which a later object
    # overwrites the match of an earlier one.
    rows = ((0, 0.18, 1, 0.5, 1), (0, 0.25, 1, 0.51, 2))
    assert match(truth(*rows), ROW, 0.99).numpy().tolist() == [[0, 1, -1, -1]]


def test_ties_go_to_the_lower_default_box_and_ground_truth():
    same = (0, 0.25, 1, 0.75, 1)  # overlaps boxes 1 and 2 equally
    assert match(truth(same, same), ROW, 0.99).numpy().tolist() == [[-1, 0, 1, -1]]


def test_padding_and_boxes_without_area_are_never_matched():
    rows = ((0, 0, 1, 1, 0), (0, 0.2, 1, 0.2, 3), (0.9, 0.3, 0.1, 0.5, 2))
    assert match(truth(*rows), ROW).numpy().tolist() == [[-1] * 4]
    assert match(np.zeros((2, 0, 5), np.float32), ROW).numpy().tolist() == [[-1] * 4] * 2


def test_more_ground_truth_than_default_boxes():
    rows = [(0, 0.08 * i, 1, 0.08 * i + 0.3, 1) for i in range(9)]
    got = match(truth(*rows), ROW).numpy()[0]
    assert sorted(got) == sorted(set(got))  # all four taken, each once
    assert got.min() >= 0


def random_truth(rng, images, count, size):
    low = rng.uniform(0, 1 - size, (images, count, 2))
    high = low + rng.uniform(0.02, size, (images, count, 2))
    labels = rng.integers(0, 4, (images, count, 1))  # some are padding
    return np.concatenate([low, high, labels], axis=-1).astype(np.float32)


CASES = {
    "sparse": (3, 0.6),
    "crowded": (40, 0.15),
    "large": (12, 0.95),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case):
    rng = np.random.default_rng(sorted(CASES).index(case))
    boxes = default_boxes(SSD300_VOC)[-3000:]  # the coarse maps, and a part of fc7's
    ground_truth = random_truth(rng, 3, *CASES[case])
    ground_truth[1, 1:3] = ground_truth[1, 0]  # the same object three times
    # On one grid of sixteenths many overlaps are equal.
    ground_truth[2, :, :4] = np.round(ground_truth[2, :, :4] * 16) / 16
    got = match(ground_truth, boxes).numpy()
    graph = tf.function(match)(tf.constant(ground_truth), tf.constant(boxes))
    np.testing.assert_array_equal(graph, got)
    overlap = pairwise_iou(ground_truth[..., :4], boxes).numpy()
    for image in range(3):
        g = ground_truth[image]
        valid = (g[:, 4] > 0) & (g[:, 2] > g[:, 0]) & (g[:, 3] > g[:, 1])
        assert got[image].tolist() == reference.match(overlap[image], valid)


def test_each_image_is_matched_alone():
    rng = np.random.default_rng(5)
    boxes = default_boxes(SSD300_VOC)[-700:]
    ground_truth = random_truth(rng, 4, 6, 0.5)
    whole = match(ground_truth, boxes).numpy()
    for i in range(4):
        np.testing.assert_array_equal(whole[i], match(ground_truth[i : i + 1], boxes).numpy()[0])


def test_xla_matches_objects_that_crops_have_cut_the_same():
    # Many default boxes have the same IoU with such objects, except for rounding.
    rng = np.random.default_rng(7)
    ground_truth = random_truth(rng, 4, 20, 0.9)
    ground_truth[:, :10, 2:4], ground_truth[:, 10:, :2] = 1, 0
    boxes = tf.constant(default_boxes(SSD300_VOC))
    compiled = tf.function(match, jit_compile=True)
    got = compiled(tf.constant(ground_truth), boxes)
    assert (got.numpy() >= 0).sum() > 100
    np.testing.assert_array_equal(got, match(ground_truth, boxes))


def test_same_under_xla():
    # Multiples of 1/16 are exact in float32, so equal IoUs stay equal with any fusion of XLA.
    rng = np.random.default_rng(6)
    low = rng.integers(0, 12, (2, 12, 2))
    high = low + rng.integers(1, 5, (2, 12, 2))
    labels = rng.integers(0, 3, (2, 12, 1)) * 16
    ground_truth = np.concatenate([low, high, labels], axis=-1).astype(np.float32) / 16
    cells = np.stack(np.meshgrid(np.arange(14), np.arange(14)), axis=-1).reshape(-1, 2) / 16
    boxes = np.concatenate([cells, cells + 1 / 8], axis=1).astype(np.float32)
    compiled = tf.function(match, jit_compile=True)
    got = compiled(tf.constant(ground_truth), tf.constant(boxes))
    assert (got.numpy() >= 0).sum() > 10
    np.testing.assert_array_equal(got, match(ground_truth, boxes))
