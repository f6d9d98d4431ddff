import numpy as np
import pytest
import reference_augment as reference
import tensorflow as tf

from ssd_keras.augment import (
    AUGMENTATIONS,
    FLIP_ONLY,
    NONE,
    SSD,
    SSD_NO_EXPAND,
    augment,
    fast_warp,
    random_crop,
    random_expand,
    random_mirror,
)
from ssd_keras.resample import INTERPOLATIONS
from tests.draws import (
    ALL_BUT_CROP,
    BOXES,
    HEIGHT,
    MEAN,
    WIDTH,
    assert_share,
    draws,
    picture,
    sample,
    views,
)
from tests.tiny import TINY


@pytest.mark.parametrize("ops", [SSD, SSD_NO_EXPAND], ids=["ssd", "ssd_no_expand"])
def test_pixels_are_those_of_the_original_step_by_step(ops):
    image = picture()
    differences = []
    for result in draws(ops):
        expected = reference.make_picture(image, result["params"], 64, MEAN, INTERPOLATIONS)
        differences.append(np.abs(result["image"] - expected))
    # Ties of rounding in the fixed-point tables move H or S by one, a few pixels by some levels.
    assert np.mean(differences) < 0.04
    assert np.mean(np.array(differences) > 1) < 4e-3


def test_boxes_are_those_of_the_original_step_by_step():
    kept = 0
    for result in views((random_expand, random_crop), 400):
        canvas, offset, window = (result[k] for k in ("canvas", "offset", "window"))
        on_canvas = (BOXES * [HEIGHT, WIDTH, HEIGHT, WIDTH] + np.tile(offset, 2)) / np.tile(
            canvas, 2
        )
        # The crop itself is not told, only its pixels: it ends up to two pixels around them.
        start, end = window[:2], window[:2] + window[2:]
        inner, outer = (
            reference.emit(
                on_canvas, np.concatenate([start + lower, end + upper]) / np.tile(canvas, 2)
            )
            for lower, upper in ((1, 0), (0, 2))
        )
        labels = set(result["labels"] - 1)
        assert inner.keys() <= labels <= outer.keys()
        for box, label in zip(result["boxes"], result["labels"], strict=True):
            np.testing.assert_allclose(box, outer[label - 1], atol=3 / window[2:].min())
            kept += 1
    assert kept > 400


def test_none_keeps_image_and_boxes():
    image = picture(64, 64)
    result = augment(sample(image), TINY, [0, 0], NONE)
    np.testing.assert_array_equal(result["image"], image)
    np.testing.assert_array_equal(result["boxes"], BOXES)
    np.testing.assert_array_equal(result["labels"], [1, 2, 3])


# --- properties of the whole ---


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_results_are_valid_and_no_object_is_invented(name):
    for result in draws(AUGMENTATIONS[name]):
        image, kept = result["image"], result["boxes"]
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 255
        np.testing.assert_array_equal(image, np.round(image))
        assert kept.min(initial=0) >= 0
        assert kept.max(initial=1) <= 1
        assert (kept[:, 2:] > kept[:, :2]).all()
        assert len(set(result["labels"])) == len(result["labels"])
        assert set(result["labels"]) <= {1, 2, 3}
        assert len(result["labels"]) == len(kept) == len(result["difficult"])


def test_boxes_without_area_go_and_those_beyond_the_image_are_clipped():
    boxes = np.array([[0.3, 0.3, 0.3, 0.6], [0.5, 0.8, 1.2, 1.4], [0.6, 0.1, 0.4, 0.2]])
    result = augment(sample(boxes=boxes), TINY, [0, 0], NONE)
    np.testing.assert_allclose(result["boxes"], [[0.5, 0.8, 1, 1]])
    np.testing.assert_array_equal(result["labels"], [2])


def test_mirror_twice_is_the_identity():
    flipped, plain = [], []
    for result in draws(FLIP_ONLY):
        (flipped if result["params"]["mirror"] else plain).append(result)
    assert min(len(flipped), len(plain)) > 5
    for result in flipped:
        np.testing.assert_array_equal(result["image"][:, ::-1], plain[0]["image"])
        ymin, xmin, ymax, xmax = result["boxes"].T
        twice = np.stack([ymin, 1 - xmax, ymax, 1 - xmin], -1)
        np.testing.assert_allclose(twice, plain[0]["boxes"], atol=1e-6)


def test_mirror_and_interpolation_draws():
    results = views(ALL_BUT_CROP)
    assert_share([r["mirror"] for r in results], 0.5)
    for k in range(5):
        assert_share([r["interpolation"] == k for r in results], 0.2)


@pytest.mark.parametrize("name", ["ssd", "ssd_fast"])
def test_eager_equals_graph_and_seeds_matter(name):
    ops = AUGMENTATIONS[name]
    graph = draws(ops)
    for k in (0, 3, 5):
        eager = augment(sample(), TINY, tf.constant([7, k], tf.int64), ops)
        np.testing.assert_array_equal(eager["image"], graph[k]["image"])
        np.testing.assert_array_equal(eager["boxes"], graph[k]["boxes"])
    assert any((graph[0]["image"] != other["image"]).any() for other in graph[1:])


def keep_linear(seen, seed):
    """Takes the place, and the seed, of another op."""
    del seed
    return seen


def test_fast_warp_is_close_to_the_linear_one():
    fast = (random_expand, random_crop, fast_warp, random_mirror)
    exact = (random_expand, random_crop, keep_linear, random_mirror)
    differences = []
    for one, other in zip(draws(fast), draws(exact), strict=True):
        np.testing.assert_array_equal(one["boxes"], other["boxes"])
        differences.append(np.abs(one["image"] - other["image"]).mean())
    assert np.mean(differences) < 3
    assert np.median(differences) < 1.5
