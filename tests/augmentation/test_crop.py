import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.augmentation import crop
from ssd_keras.augmentation.ops import SSD_FAST_OPS, SSD_OPS, random_crop
from tests.draws import (
    ALL_BUT_CROP,
    BOXES,
    HEIGHT,
    MEAN,
    WIDTH,
    assert_same_distribution,
    assert_share,
    assert_uniform,
    draws,
    views,
)
from tests.reference import augmentation as reference


def test_expansion_draws():
    results = views(ALL_BUT_CROP)
    ratio = np.array([r["canvas"][1] / WIDTH for r in results])
    expanded = ratio > 1
    assert_share(expanded, 0.5)
    assert_uniform(ratio[expanded], 1, 4)
    room = np.array([r["canvas"] - [HEIGHT, WIDTH] for r in results])[expanded]
    offset = np.array([r["offset"] for r in results])[expanded]
    assert (offset >= 0).all()
    assert (offset <= room).all()
    for axis in (0, 1):
        wide = room[:, axis] > 100
        assert_uniform((offset[wide, axis] + 0.5) / (room[wide, axis] + 1), 0, 1)
    assert all(len(r["boxes"]) == len(BOXES) for r in results)
    for r in results[:50]:  # equal on both axes, except for rounding to whole pixels
        assert abs(r["canvas"][0] / HEIGHT - r["canvas"][1] / WIDTH) < 1 / HEIGHT


def test_half_of_the_images_are_expanded():
    """20,000 draws, because 1500, as in the other tests, do not distinguish 50 % from 45 %."""
    seeds = tf.random.experimental.stateless_split([3, 4], 20_000)
    size = tf.constant([HEIGHT, WIDTH])
    canvas = tf.vectorized_map(lambda seed: crop.draw_expansion(seed, size)[0], seeds)
    expanded = np.any(canvas.numpy() > [HEIGHT, WIDTH], axis=1)
    assert_share(expanded, 0.5)


def test_fill_is_the_mean_and_is_not_distorted():
    for ops in (SSD_OPS, SSD_FAST_OPS):
        seen = 0
        for result in draws(ops):
            params = result["params"]
            # The image begins at least 24 pixels below and to the right of the window's corner.
            if (params["window"][:2] + 24 < params["offset"]).all():
                corner = result["image"][0, -1 if params["mirror"] else 0]
                np.testing.assert_array_equal(corner, MEAN)
                seen += 1
        assert seen > 3


def candidates(count):
    seeds = tf.random.experimental.stateless_split([5, 6], count)
    drawn = tf.data.Dataset.from_tensor_slices(seeds).map(crop.draw_candidates)
    return np.array(list(drawn.as_numpy_iterator()))


def test_trials_have_the_originals_scales_and_aspects():
    ymin, xmin, ymax, xmax = np.moveaxis(candidates(30).reshape(-1, 4).astype(np.float64), -1, 0)
    assert min(ymin.min(), xmin.min()) >= -1e-6
    assert max(ymax.max(), xmax.max()) <= 1 + 1e-6
    height, width = ymax - ymin, xmax - xmin
    scale, aspect = np.sqrt(height * width), width / height
    assert_uniform(scale, 0.3 - 1e-6, 1 + 1e-6)
    assert (aspect >= np.maximum(0.5, scale**2) - 1e-4).all()
    assert (aspect <= np.minimum(2.0, scale**-2) + 1e-4).all()
    # Aspect ratios are drawn, then clamped. The expected share is the integral of
    # (s^2 - 1/2 + 2 - 1/s^2) / 1.5 over s from sqrt(1/2) to 1, divided by 0.7. If aspect ratios
    # were drawn inside the clamped range, no crop would span a whole side.
    assert_share(np.maximum(height, width) > 1 - 1e-5, 0.2291)
    small = scale < 0.7  # the clamp has no effect here: scale ** 2 < 0.5
    assert_uniform(aspect[small], 0.5 - 1e-5, 2 + 1e-5)
    room = np.maximum(1 - height, 1e-9), np.maximum(1 - width, 1e-9)
    assert_uniform((ymin / room[0])[room[0] > 0.05], 0, 1)
    assert_uniform((xmin / room[1])[room[1] > 0.05], 0, 1)


@pytest.mark.parametrize(
    "boxes",
    [
        BOXES,
        BOXES[:1],
        np.array([[0.48, 0.48, 0.52, 0.52]]),  # a small object: crops reach only the lowest IoU
        np.array([[0.0, 0.0, 1.0, 1.0]]),
        np.zeros((0, 4)),
    ],
    ids=["three", "one", "small", "whole", "none"],
)
def test_samplers_accept_what_the_original_accepts(boxes):
    boxes = np.float32(boxes)
    seen = set()
    for k, trials in enumerate(candidates(60)):
        expected = reference.run_samplers(trials, boxes)
        u = np.float32((k % 12 + 0.5) / 12)
        chosen, sampler = crop.choose_crop(tf.constant(trials), tf.constant(boxes), tf.constant(u))
        expected_sampler, expected_crop = expected[int(u * len(expected))]
        assert int(sampler) == expected_sampler
        np.testing.assert_array_equal(chosen, np.float32(expected_crop))
        seen.add(int(sampler))
    assert seen == {0} if len(boxes) == 0 else {0, 6} <= seen


def test_one_success_is_picked_uniformly():
    # One object fills the image, so all seven samplers succeed and each has the share 1 / 7.
    results = views((random_crop,), boxes=(0, 0, 1, 1))
    for sampler in range(7):
        assert_share([r["sampler"] == sampler for r in results], 1 / 7)
    # Without objects, only sampler 0 (the whole image) succeeds.
    assert all(r["sampler"] == 0 for r in views((random_crop,), 100, ()))


def test_crops_meet_their_samplers_constraint():
    results = views((random_crop,))
    least = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0]
    overlaps = {k: [] for k in range(7)}
    for r in results:
        top, left, height, width = r["window"]
        window = np.array([top, left, top + height, left + width]) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
        overlaps[r["sampler"]].append(max(reference.iou(window, box) for box in BOXES))
    for sampler, bound in enumerate(least):
        assert len(overlaps[sampler]) > 20 or sampler == 5  # an IoU of 0.9 is rare
        assert all(o > bound - 0.02 for o in overlaps[sampler])  # 0.02 for rounding to pixels
    # The constraint has an effect: without it, most crops have an IoU below 0.35.
    assert np.median(overlaps[6]) < 0.35
    assert np.median(overlaps[3]) < 0.65  # crops do not exceed the bound by much


def test_overlap_and_kept_objects_are_distributed_as_the_originals():
    """Two-sided test against the slow original, with independent random numbers."""
    rng = np.random.default_rng(0)
    expected = [reference.random_crop(rng, BOXES) for _ in range(800)]
    results = views((random_crop,))
    samplers = np.array([sampler for sampler, _, _ in expected])
    drawn = np.array([r["sampler"] for r in results])
    for k in range(7):
        one, other = drawn == k, samplers == k
        deviation = np.sqrt(np.var(one) / len(one) + np.var(other) / len(other))
        assert abs(np.mean(one) - np.mean(other)) < 4 * deviation
    overlaps = [max(reference.iou(r["crop"], box) for box in BOXES) for r in results]
    assert_same_distribution(overlaps, [overlap for _, overlap, _ in expected])
    kept = np.array([len(r["labels"]) for r in results])
    others = np.array([count for _, _, count in expected])
    for k in range(4):
        deviation = np.sqrt(np.var(kept == k) / len(kept) + np.var(others == k) / len(others))
        assert abs(np.mean(kept == k) - np.mean(others == k)) < 4 * deviation


def test_objects_with_the_center_in_the_crop_are_kept():
    boxes = tf.constant(
        [[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.48, 1.0], [0.2, 0.2, 0.6, 0.6], [0.5, 0.5, 1.0, 1.0]]
    )
    moved, inside = crop.crop_boxes(boxes, tf.constant([0.25, 0.25, 0.75, 0.75]))
    np.testing.assert_array_equal(inside, [True, False, True, True])  # centers .25 .24 .4 .75
    np.testing.assert_allclose(moved[0], [0, 0, 0.5, 1])
    np.testing.assert_allclose(moved[2], [0, 0, 0.7, 0.7], atol=1e-6)


def test_window_truncates_as_the_original_and_is_never_empty():
    window = crop.crop_window(tf.constant([0.111, 0.222, 0.555, 0.999]), tf.constant([75, 100]))
    np.testing.assert_array_equal(window, [8, 22, 33, 77])
    window = crop.crop_window(tf.constant([0.1, 0.1, 0.4, 0.4]), tf.constant([2, 2]))
    np.testing.assert_array_equal(window, [0, 0, 1, 1])
