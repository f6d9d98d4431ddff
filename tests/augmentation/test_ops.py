import dataclasses
import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.augmentation.ops import (
    AUGMENTATIONS,
    FLIP_ONLY_OPS,
    NO_OPS,
    SSD_NO_EXPAND_OPS,
    SSD_OPS,
    augment,
    decide,
    fast_warp,
    random_crop,
    random_distort,
    random_expand,
    random_mirror,
    visible_objects,
)
from ssd_keras.augmentation.resampling import INTERPOLATIONS
from tests import golden_inputs as golden
from tests.draws import (
    ALL_BUT_CROP,
    BOXES,
    HEIGHT,
    MEAN,
    WIDTH,
    assert_same_distribution,
    assert_share,
    draws,
    encode,
    picture,
    sample,
    views,
)
from tests.reference import augmentation as reference
from tests.tiny import TINY


@pytest.mark.parametrize(
    ("ops", "image_format"),
    [(SSD_OPS, "PNG"), (SSD_NO_EXPAND_OPS, "PNG"), (SSD_OPS, "JPEG")],
    ids=["ssd", "ssd_no_expand", "ssd of a JPEG"],
)
def test_pixels_are_those_of_the_original_step_by_step(ops, image_format):
    image = np.array(Image.open(io.BytesIO(encode(picture(), image_format))))
    differences = []
    for result in draws(ops, image_format=image_format):
        expected = reference.make_picture(image, result["params"], 64, MEAN, INTERPOLATIONS)
        differences.append(np.abs(result["image"] - expected))
    # Rounding ties in the fixed-point tables change H or S by 1, and a few pixels by some levels.
    assert np.mean(differences) < 0.04
    assert np.mean(np.array(differences) > 1) < 4e-3


def test_boxes_are_those_of_the_original_step_by_step():
    kept = 0
    for result in views((random_expand, random_crop), 400):
        canvas, offset, crop = (result[name] for name in ("canvas", "offset", "crop"))
        on_canvas = (BOXES * [HEIGHT, WIDTH, HEIGHT, WIDTH] + np.tile(offset, 2)) / np.tile(
            canvas, 2
        )
        expected = reference.emit(on_canvas, crop)
        assert (result["labels"] - 1).tolist() == list(expected)
        if expected:
            np.testing.assert_allclose(result["boxes"], list(expected.values()), atol=2e-6)
        start, end = np.trunc(crop[:2] * canvas), crop[2:] * canvas
        np.testing.assert_array_equal(result["window"][:2], start)
        assert (np.abs(result["window"][2:] - (end - crop[:2] * canvas)) < 1).all()
        kept += len(expected)
    assert kept > 400


def test_dropped_objects_stay_dropped():
    def drop_the_first(seen, seed):
        del seed
        return dataclasses.replace(seen, keep=seen.keep & [False, True, True])

    results = views((drop_the_first, random_crop), 30)
    assert {label for r in results for label in r["labels"]} == {2, 3}


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ((random_crop, random_expand), "random_expand after random_crop"),
        ((random_mirror, random_distort, random_crop), "random_crop after random_mirror"),
        ((random_crop, random_crop), "random_crop after random_crop"),
    ],
)
def test_geometry_out_of_order_is_refused(ops, message):
    with pytest.raises(ValueError, match=rf"ops have {message}: each of random_expand, .* order"):
        augment(sample(), TINY, [0, 0], ops)


def test_none_keeps_image_and_boxes():
    image = picture(64, 64)
    result = augment(sample(image), TINY, [0, 0], NO_OPS)
    np.testing.assert_array_equal(result["image"], image)
    np.testing.assert_array_equal(result["boxes"], BOXES)
    np.testing.assert_array_equal(result["labels"], [1, 2, 3])


# --- properties of all augmentations ---


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
    result = augment(sample(boxes=boxes), TINY, [0, 0], NO_OPS)
    np.testing.assert_allclose(result["boxes"], [[0.5, 0.8, 1, 1]])
    np.testing.assert_array_equal(result["labels"], [2])


def test_mirror_twice_is_the_identity():
    flipped, plain = [], []
    for result in draws(FLIP_ONLY_OPS):
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


def scalars(result):
    """Returns the independent random numbers of a result; NaN if a number has no effect."""
    canvas, crop, d = result["canvas"], result["crop"], result["distortion"]
    room = canvas - [HEIGHT, WIDTH]
    expanded = room.min() > 100
    values = {"ratio": canvas[1] / WIDTH if expanded else np.nan}
    values["offset y"], values["offset x"] = result["offset"] / np.where(expanded, room, np.nan)
    height, width = crop[2:] - crop[:2]
    free = result["sampler"] == 6  # this sampler accepts its first trial
    values["scale"] = np.sqrt(height * width) if free else np.nan
    values["aspect"] = np.log(width / height) if free else np.nan
    values["crop y"] = crop[0] / (1 - height) if free and height < 0.95 else np.nan
    values["crop x"] = crop[1] / (1 - width) if free and width < 0.95 else np.nan
    values |= {f"applied {k}": d.applied[k] for k in range(4)}
    values |= {name: getattr(d, name) for name in d._fields if name != "applied"}
    return values | {name: result[name] for name in ("interpolation", "mirror")}


def test_draws_are_independent():
    """The numbers of different ops are independent, too, because each op has another seed."""
    results = [scalars(r) for r in views(SSD_OPS, 2000)]
    names = list(results[0])
    drawn = np.array([list(r.values()) for r in results], float)
    for i, j in itertools.combinations(range(len(names)), 2):
        both = drawn[np.isfinite(drawn[:, [i, j]]).all(axis=1)][:, [i, j]]
        assert len(both) > 150
        correlation = np.corrcoef(both.T)[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(len(both)), (names[i], names[j], correlation)


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
    """An op without effect in the place of `fast_warp`, so that later ops have the same seeds."""
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


def test_objects_are_left_as_in_the_originals_samples():
    """Expansion, samplers and mirror; 4000 samples of the original's data layer.

    Each class is tested separately, because the statistical test needs values of different samples.
    """
    size = np.array([golden.SAMPLED_HEIGHT, golden.SAMPLED_WIDTH] * 2)
    fixed = sample(boxes=np.array(golden.SAMPLED_BOXES) / size)
    height, width = golden.SAMPLED_HEIGHT, golden.SAMPLED_WIDTH
    fixed |= {"height": tf.constant(height), "width": tf.constant(width)}
    ops = (random_expand, random_crop, random_mirror)

    def plan(k):
        view = decide(fixed, tf.stack([tf.constant(3, tf.int64), k]), ops)
        return visible_objects(fixed, view)

    found = list(tf.data.Dataset.range(3000).map(plan).as_numpy_iterator())
    answers = golden.answers("samples")
    for label in (1, 2, 3):
        left = np.array([label in f["labels"] for f in found])
        theirs = answers[f"{label}/left"]
        share = np.mean([*left, *theirs])
        deviation = np.sqrt(share * (1 - share) * (1 / len(left) + 1 / len(theirs)))
        assert abs(np.mean(left) - np.mean(theirs)) < 4 * deviation
        ours = np.concatenate([f["boxes"][f["labels"] == label] for f in found])
        boxes = answers[f"{label}/boxes"] / 65535
        assert len(ours) > 500
        values = [np.column_stack([b, b[:, 2:] - b[:, :2]]).T for b in (ours, boxes)]
        for mine, other in zip(*values, strict=True):
            # Crops of the whole image give equal values, which must not differ by rounding.
            assert_same_distribution(np.round(mine.astype(float), 3), np.round(other, 3))
