import functools
import io

import numpy as np
import pytest
import reference_augment as reference
import tensorflow as tf
from PIL import Image

from ssd_keras import crop, distort, view
from ssd_keras.augment import (
    AUGMENTATIONS,
    DRAWN,
    FLIP_ONLY,
    NONE,
    SSD,
    SSD_FAST,
    SSD_NO_EXPAND,
    augment,
    fast_warp,
    ground_truth,
    random_crop,
    random_expand,
    random_interpolation,
    random_mirror,
)
from ssd_keras.config import SSD300_VOC
from ssd_keras.resample import INTERPOLATIONS, axis_maps, resample
from tests.tiny import TINY

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.4, 0.5, 0.9, 0.95], [0.0, 0.0, 0.1, 0.12]], np.float32)
MEAN = (123.0, 117.0, 104.0)
HEIGHT, WIDTH = 750, 1000  # where nothing is decoded


def picture(height=75, width=100, seed=0, grey=False):
    """Smooth noise, so that neighbouring pixels say where they come from."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.repeat(image[..., :1], 3, -1) if grey else image


def encode(image, image_format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format)
    return buffer.getvalue()


def sample(image=None, boxes=BOXES, image_format="PNG"):
    image = picture() if image is None else image
    return {
        "image": tf.constant(encode(image, image_format)),
        "boxes": tf.constant(boxes, tf.float32, [len(boxes), 4]),
        "labels": tf.range(1, len(boxes) + 1),
        "difficult": tf.zeros([len(boxes)], tf.bool),
        "height": tf.constant(image.shape[0]),
        "width": tf.constant(image.shape[1]),
    }


@functools.cache
def draws(ops, count=40, config=TINY):
    """`count` results of `augment` with different seeds, from a tf.data graph, as NumPy."""
    fixed = sample()
    dataset = tf.data.Dataset.range(count).map(
        lambda k: augment(fixed, config, tf.stack([tf.constant(7, tf.int64), k]), ops)
    )
    return list(dataset.as_numpy_iterator())


@functools.cache
def views(ops, count=2000, boxes=None):
    """The same without pixels, hence quick: what was drawn, and the ground truth that is left."""

    def plan(k):
        seen = view.whole_image(fixed)
        seeds = tf.random.experimental.stateless_split(tf.stack([tf.constant(7, tf.int64), k]), 5)
        for i, op in enumerate(ops):
            seen = op(seen, seeds[i])
        drawn = {name: getattr(seen, name) for name in DRAWN if name != "distortion"}
        return drawn | ground_truth(fixed, seen)

    fixed = sample(boxes=BOXES if boxes is None else np.reshape(boxes, [-1, 4]))
    fixed |= {"height": tf.constant(HEIGHT), "width": tf.constant(WIDTH)}
    return list(tf.data.Dataset.range(count).map(plan).as_numpy_iterator())


def assert_share(hits, probability):
    """Two-sided: the share of hits lies within 4 standard deviations of its expectation."""
    deviation = np.sqrt(probability * (1 - probability) / len(hits))
    assert abs(np.mean(hits) - probability) < 4 * deviation


def assert_uniform(values, low, high):
    """Two-sided Kolmogorov-Smirnov test at about 1 in 10,000, and the bounds."""
    values = np.sort((np.asarray(values) - low) / (high - low))
    assert values[0] >= -1e-5
    assert values[-1] <= 1 + 1e-5
    ranks = np.arange(len(values) + 1) / len(values)
    distance = max(np.max(ranks[1:] - values), np.max(values - ranks[:-1]))
    assert distance < 2.23 / np.sqrt(len(values))


# --- the pixels and boxes of the original, on the same draws ---


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
    for result in views((random_expand, random_crop), 500):
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
    assert kept > 500


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(75, 100), (40, 50), (50, 110), (64, 64), (7, 300)])
def test_warp_is_opencv_resize(shape, interpolation):
    image = picture(*shape, seed=1) if min(shape) >= 8 else picture(56, 304)[:7, :300]
    window = tf.constant([0, 0, *shape])
    index = tf.constant(INTERPOLATIONS.index(interpolation))
    maps = axis_maps(window, tf.zeros([2], tf.int32), window, tf.constant(False), index, 60)
    planes = tf.unstack(tf.cast(image, tf.float32), axis=-1)
    result = resample(planes, *maps, 60, MEAN).numpy().astype(int)
    expected = reference.resize(image, 60, interpolation).astype(int)
    assert np.abs(result - expected).max() <= 1
    assert np.mean(result != expected) < 0.02  # halves, rounded either way


def test_linear_warp_is_tensorflows_resize():
    image = picture(150, 220)
    result = augment(sample(image), TINY, [0, 0], NONE)["image"]
    expected = tf.image.resize(image, [64, 64], "bilinear", antialias=False)
    np.testing.assert_allclose(result, expected, atol=0.501)


def test_none_keeps_image_and_boxes():
    image = picture(64, 64)
    result = augment(sample(image), TINY, [0, 0], NONE)
    np.testing.assert_array_equal(result["image"], image)
    np.testing.assert_array_equal(result["boxes"], BOXES)
    np.testing.assert_array_equal(result["labels"], [1, 2, 3])


# --- photometric distortion ---


def test_hsv_is_opencvs_8_bit_hsv():
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128]]])
    h, s, v = distort.rgb_to_hsv8(tuple(tf.unstack(tf.cast(pure, tf.float32), axis=-1)))
    np.testing.assert_array_equal(h[0], [0, 60, 120, 30, 0])
    np.testing.assert_array_equal(s[0], [255, 255, 255, 255, 0])
    np.testing.assert_array_equal(v[0], [255, 255, 255, 255, 128])

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    planes = tuple(tf.unstack(tf.cast(image, tf.float32), axis=-1))
    hsv = tf.stack(distort.rgb_to_hsv8(planes), axis=-1).numpy()
    expected = reference.rgb_to_hsv8(image)
    assert np.mean(hsv != expected) < 0.02  # halves of the fixed-point tables
    assert np.abs(hsv - expected).max() <= 1
    expected[..., 0] = np.arange(40 * 50).reshape(40, 50) % 198  # from 180 on it goes round
    back = distort.hsv8_to_rgb(tuple(tf.unstack(tf.cast(expected, tf.float32), axis=-1)))
    np.testing.assert_allclose(tf.stack(back, -1), reference.hsv8_to_rgb(expected), atol=1)


def test_hue_saturates_below_zero_and_wraps_above():
    orange, pink = [255.0, 64.0, 0.0], [255.0, 0.0, 64.0]  # H 8 and 172
    planes = tuple(tf.constant([[orange[c], pink[c]]]) for c in range(3))
    lower = tf.stack(distort.adjust_hue(planes, -18.0), axis=-1).numpy()[0]
    upper = tf.stack(distort.adjust_hue(planes, 18.0), axis=-1).numpy()[0]
    np.testing.assert_array_equal(lower[0], [255, 0, 0])  # 8 - 18 stops at 0, red
    np.testing.assert_array_equal(upper[1], [255, 85, 0])  # 172 + 18 = 190 is 10, orange


def test_distortion_draws():
    seeds = tf.random.experimental.stateless_split([1, 2], 3000)
    drawn = tf.data.Dataset.from_tensor_slices(seeds).map(distort.draw_distortion)
    d = distort.Distortion(*(np.array(x) for x in zip(*drawn.as_numpy_iterator(), strict=True)))
    assert_share(d.contrast_first, 0.5)
    for which in range(4):
        assert_share(d.applied[:, which], 0.5)
    assert_share(d.applied.all(axis=1), 1 / 16)  # independent
    assert_uniform(d.brightness, -32, 32)
    assert_uniform(d.contrast, 0.5, 1.5)
    assert_uniform(d.saturation, 0.5, 1.5)
    assert_uniform(d.hue, -18, 18)


def test_an_op_not_applied_changes_nothing_and_grey_stays_grey():
    image = picture(grey=True)
    planes = tuple(tf.unstack(tf.cast(image, tf.float32), axis=-1))
    amounts = {"brightness": 20.0, "contrast": 1.3, "saturation": 1.5, "hue": 10.0}
    nothing = distort.Distortion(tf.constant(True), tf.constant([False] * 4), **amounts)
    np.testing.assert_array_equal(distort.distort(planes, nothing), planes)
    colours = distort.Distortion(
        tf.constant(True), tf.constant([False, False, True, True]), **amounts
    )
    np.testing.assert_array_equal(distort.distort(planes, colours), planes)


# --- expansion ---


def test_expansion_draws():
    results = views((random_expand,))
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
    for r in results[:50]:  # the same on both axes, but for whole pixels
        assert abs(r["canvas"][0] / HEIGHT - r["canvas"][1] / WIDTH) < 1 / HEIGHT


def test_fill_is_the_mean_and_is_not_distorted():
    for ops in (SSD, SSD_FAST):
        seen = 0
        for result in draws(ops):
            params = result["params"]
            # A margin of some output pixels at the window's top left, or the whole window.
            if (params["window"][:2] + 24 < params["offset"]).all():
                corner = result["image"][0, -1 if params["mirror"] else 0]
                np.testing.assert_array_equal(corner, MEAN)
                seen += 1
        assert seen > 3


# --- the seven samplers ---


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
    small = scale < 0.7  # where the clamp does nothing: scale ** 2 < 0.5
    assert_uniform(aspect[small], 0.5 - 1e-5, 2 + 1e-5)
    room = np.maximum(1 - height, 1e-9), np.maximum(1 - width, 1e-9)
    assert_uniform((ymin / room[0])[room[0] > 0.05], 0, 1)
    assert_uniform((xmin / room[1])[room[1] > 0.05], 0, 1)


@pytest.mark.parametrize(
    "boxes",
    [
        BOXES,
        BOXES[:1],
        np.array([[0.48, 0.48, 0.52, 0.52]]),  # small: only the lowest constraints can be met
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
    # One object that fills the image: every sampler succeeds, so that each is taken 1 in 7 times.
    results = views((random_crop,), boxes=(0, 0, 1, 1))
    for sampler in range(7):
        assert_share([r["sampler"] == sampler for r in results], 1 / 7)
    # Without objects only the whole image is left.
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
        assert len(overlaps[sampler]) > 20 or sampler == 5  # 0.9 is rare
        assert all(o > bound - 0.02 for o in overlaps[sampler])  # whole pixels
    # The constraint binds: without it crops overlap less than half with every object.
    assert np.median(overlaps[6]) < 0.35
    assert np.median(overlaps[3]) < 0.65  # and is not overfulfilled


def test_emission_is_by_centre_edges_included():
    boxes = tf.constant(
        [[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.48, 1.0], [0.2, 0.2, 0.6, 0.6], [0.5, 0.5, 1.0, 1.0]]
    )
    moved, inside = crop.crop_boxes(boxes, tf.constant([0.25, 0.25, 0.75, 0.75]))
    np.testing.assert_array_equal(inside, [True, False, True, True])  # centres .25 .24 .4 .75
    np.testing.assert_allclose(moved[0], [0, 0, 0.5, 1])
    np.testing.assert_allclose(moved[2], [0, 0, 0.7, 0.7], atol=1e-6)


def test_window_truncates_as_the_original_and_is_never_empty():
    window = crop.crop_window(tf.constant([0.111, 0.222, 0.555, 0.999]), tf.constant([75, 100]))
    np.testing.assert_array_equal(window, [8, 22, 33, 77])
    window = crop.crop_window(tf.constant([0.1, 0.1, 0.4, 0.4]), tf.constant([2, 2]))
    np.testing.assert_array_equal(window, [0, 0, 1, 1])


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
    results = views((random_mirror, random_interpolation))
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


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "window", [(0, 0, 75, 100), (11, 23, 40, 61), (11, 23, 41, 62), (74, 99, 1, 1)]
)
def test_decoding_a_window_is_decoding_and_slicing(image_format, window):
    encoded = encode(picture(), image_format)
    top, left, height, width = window
    whole = np.array(Image.open(io.BytesIO(encoded))).astype(int)
    part = view.decode(tf.constant(encoded), tf.constant(window)).numpy()
    expected = whole[top : top + height, left : left + width]
    np.testing.assert_array_equal(part, expected)  # Pillow's JPEG decoder is libjpeg too


def test_grey_images_and_single_pixels():
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 77).save(buffer, "JPEG")
    one = {**sample(boxes=BOXES[:1]), "image": tf.constant(buffer.getvalue())}
    one |= {"height": tf.constant(1), "width": tf.constant(1)}
    for k in range(5):
        result = augment(one, SSD300_VOC, [0, k])
        assert result["image"].shape == (300, 300, 3)
        assert np.isfinite(result["image"]).all()
