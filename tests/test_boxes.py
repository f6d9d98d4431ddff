import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_keras.boxes import cyxhw_to_yxyx, decode, encode, pairwise_iou, yxyx_to_cyxhw
from ssd_keras.config import SSD300_VOC
from ssd_keras.tiling import default_boxes
from tests.reference import core as reference

VARIANCES = (0.1, 0.1, 0.2, 0.2)


def test_formats():
    np.testing.assert_allclose(yxyx_to_cyxhw([[0.0, 0.2, 0.4, 1.0]]), [[0.2, 0.6, 0.4, 0.8]])
    np.testing.assert_allclose(
        cyxhw_to_yxyx([[0.2, 0.6, 0.4, 0.8]]), [[0.0, 0.2, 0.4, 1.0]], atol=1e-7
    )


def test_iou_by_hand():
    # Halves of a unit square that share a quarter of it: 1/4 over 3/4.
    a = tf.constant([[0, 0, 1, 0.5]])
    b = tf.constant([[0, 0.25, 1, 0.75], [0, 0, 1, 0.5], [0, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.5]])
    np.testing.assert_allclose(pairwise_iou(a, b), [[1 / 3, 1, 0, 0]], rtol=1e-6)


def test_iou_of_boxes_without_area_is_zero():
    empty = tf.constant([[0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1]])
    assert np.all(pairwise_iou(empty[:1], empty[:1]).numpy() == 0)
    assert np.all(np.isfinite(pairwise_iou(empty, empty)))


def test_lists_and_other_floats_are_boxes_too():
    boxes = [[0.0, 0, 0.5, 0.5]]
    for same in (boxes, np.array(boxes), tf.constant(boxes, tf.float16)):
        assert pairwise_iou(same, boxes).numpy().tolist() == [[1.0]]
        offsets = encode(same, np.array(same, np.float64), (0.1, 0.1, 0.2, 0.2))
        assert decode(offsets.numpy().tolist(), same, (0.1,) * 4).numpy().tolist() == boxes


def test_encode_by_hand():
    # Default box at (.5, .5) of .4 x .2; the object at (.6, .5), .4 x .4.
    # dy = .1 / .4 / .1 = 2.5; dx = 0; dh = ln 1 = 0; dw = ln 2 / .2 = 3.4657.
    default = tf.constant([[0.3, 0.4, 0.7, 0.6]])
    offsets = encode(tf.constant([[0.4, 0.3, 0.8, 0.7]]), default, VARIANCES)
    np.testing.assert_allclose(offsets, [[2.5, 0, 0, 3.465736]], atol=1e-5)


def jaccard_overlap(a, b):
    """The original's `JaccardOverlap` and `BBoxSize` in float32, with a rounding per operation."""
    a, b = a[:, None, :], b[None, :, :]
    height = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    width = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    shared = np.where((height > 0) & (width > 0), height * width, np.float32(0))
    sizes = [(x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b)]
    return shared / (sizes[0] + sizes[1] - shared)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_iou_has_the_originals_roundings(mode):
    """Bit for bit: a fused multiply-add would change about 1 value in 50."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.9, (40, 2))
    high = np.minimum(low + rng.uniform(0.01, 0.9, (40, 2)), 1)
    truth = np.concatenate([low, high], axis=1).astype(np.float32)
    truth[:10, 2:], truth[10:20, :2] = 1, 0  # cut by the border
    defaults = default_boxes(SSD300_VOC)
    iou = pairwise_iou if mode == "eager" else tf.function(pairwise_iou, jit_compile=mode == "xla")
    got = iou(tf.constant(truth), tf.constant(defaults)).numpy()
    np.testing.assert_array_equal(got, jaccard_overlap(truth, defaults))


# Corners and sides are multiples of 1/1000: TensorFlow flushes subnormal numbers to 0, and
# hypothesis reports this as an error.
boxes_strategy = st.lists(
    st.tuples(*[st.integers(0, 900)] * 2, *[st.integers(10, 1000)] * 2), min_size=1, max_size=8
)


def to_boxes(values):
    return np.array([(y, x, y + h, x + w) for y, x, h, w in values], np.float32) / 1000


@settings(max_examples=25, deadline=None)
@given(boxes_strategy, boxes_strategy)
def test_iou_equals_the_reference_and_is_symmetric(first, second):
    a, b = to_boxes(first), to_boxes(second)
    got = pairwise_iou(a, b).numpy()
    want = [[reference.iou(p, q) for q in b.astype(float)] for p in a.astype(float)]
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(got, pairwise_iou(b, a).numpy().T, atol=1e-6)
    assert got.min() >= 0
    assert got.max() <= 1 + 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8731), boxes_strategy)
def test_decode_undoes_encode(index, values):
    boxes = to_boxes(values)
    default = np.repeat(default_boxes(SSD300_VOC)[index : index + 1], len(boxes), axis=0)
    again = decode(encode(boxes, default, VARIANCES), default, VARIANCES)
    np.testing.assert_allclose(again, boxes, atol=2e-5)


def test_forms_are_converted_for_any_number_of_dimensions():
    """Boxes [2, 3, 4] show that the last axis is used, not axis 1."""
    corners = np.sort(np.random.default_rng(0).random((2, 3, 2, 2)), axis=-2).reshape(2, 3, 4)
    centers = yxyx_to_cyxhw(corners).numpy()
    for i in range(2):
        for j in range(3):
            ymin, xmin, ymax, xmax = corners[i, j]
            expected = [(ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin]
            np.testing.assert_allclose(centers[i, j], expected, rtol=1e-6)
    np.testing.assert_allclose(cyxhw_to_yxyx(centers), corners, rtol=1e-5)
