import dataclasses
import functools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.boxes import pairwise_iou, yxyx_to_cyxhw
from ssd_keras.config import SSD300_VOC
from ssd_keras.losses import MultiBoxLoss, hard_negatives, multibox_terms, smooth_l1
from ssd_keras.tiling import default_boxes
from tests import golden_inputs as golden
from tests.reference import core as reference
from tests.tiny import TINY

BOXES = default_boxes(SSD300_VOC)
VARIANCES = SSD300_VOC.variances


def predictions(rng, images, boxes, classes=3):
    return rng.normal(size=(images, boxes, 5 + classes)).astype(np.float32)


def terms(ground_truth, prediction, boxes=BOXES):
    prediction = tf.convert_to_tensor(prediction)
    return multibox_terms(
        tf.convert_to_tensor(ground_truth),
        prediction[..., :4],
        prediction[..., 4:],
        boxes,
        VARIANCES,
        iou_threshold=0.5,
        negative_ratio=3.0,
    )


def test_smooth_l1_by_hand():
    # .5 * .5^2 + (2 - .5) + 0 + .5 = 2.125
    assert smooth_l1(tf.constant([[0.5, -2.0, 0.0, 1.0]])).numpy().tolist() == [2.125]


def test_loss_by_hand():
    # One object that is exactly the first default box, all logits and offsets 0: one positive and
    # three negatives, each ln 4 with three classes and the background; no localisation error.
    small = np.array([[0.35, 0.35, 0.45, 0.45], [0.75, 0.75, 0.85, 0.85]] * 5, np.float32)
    ground_truth = np.array([[[0.35, 0.35, 0.45, 0.45, 2]]], np.float32)
    small[2:] = [0.85, 0.05, 0.95, 0.15]
    localization, confidence, positives = terms(ground_truth, np.zeros((1, 10, 8), "f"), small)
    assert positives.numpy().tolist() == [1]
    np.testing.assert_allclose(confidence, [4 * math.log(4)], rtol=1e-6)
    np.testing.assert_allclose(localization, [0], atol=1e-8)


def test_hard_negatives_by_hand():
    losses = tf.constant([[0.1, 0.9, 0.5, 0.7, 0.9], [0.0, 0.0, 0.0, 0.0, 0.0], [3.0, 2, 1, 0, 5]])
    eligible = tf.constant([[1, 1, 1, 1, 0], [1, 1, 1, 0, 1], [1, 1, 0, 0, 1]]) > 0
    got = hard_negatives(losses, eligible, tf.constant([2, 3, 9])).numpy().astype(int)
    assert got.tolist() == [[0, 1, 0, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 1]]


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_hard_negatives_are_those_a_sort_finds(jit):
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=(6, 500)).astype(np.float32)
    losses[3] = np.round(losses[3])  # many ties
    losses[4] = 0
    eligible = rng.random((6, 500)) < 0.9
    count = np.array([0, 1, 30, 200, 17, 1000], np.int32)
    got = tf.function(hard_negatives, jit_compile=jit)(losses, eligible, count).numpy()
    for i in range(6):
        order = sorted(np.flatnonzero(eligible[i]), key=lambda j: (-losses[i, j], j))
        assert set(np.flatnonzero(got[i])) == set(order[: count[i]])


def random_truth(seed, images, count):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.7, (images, count, 2))
    high = low + rng.uniform(0.05, 0.3, (images, count, 2))
    labels = rng.integers(0, 4, (images, count, 1))
    truth = np.concatenate([low, high, labels], axis=-1).astype(np.float32)
    return truth * (labels > 0)  # padding has no area


CASES = {
    "random": random_truth(0, 2, 5),
    "crowded": random_truth(1, 2, 30),
    "one empty": random_truth(2, 2, 4) * np.array([1, 0], np.float32)[:, None, None],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tied", [False, True], ids=["varied", "tied"])
def test_equals_the_reference(case, tied):
    boxes = BOXES[-2000::5]
    prediction = predictions(np.random.default_rng(3), 2, len(boxes))
    if tied:
        prediction[..., 4:] = np.round(prediction[..., 4:])
    got = [float(tf.reduce_sum(t)) for t in terms(CASES[case], prediction, boxes)]
    overlap = pairwise_iou(CASES[case][..., :4], boxes).numpy()
    want = reference.multibox_loss(
        CASES[case], prediction, overlap, yxyx_to_cyxhw(boxes).numpy(), VARIANCES
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_mean_is_the_sum_over_the_positives_of_the_whole_batch():
    ground_truth = random_truth(4, 3, 4)
    prediction = predictions(np.random.default_rng(5), 3, 8732)
    loss = MultiBoxLoss(SSD300_VOC)
    got = float(loss(ground_truth, prediction))
    localization, confidence, positives = (
        float(tf.reduce_sum(t)) for t in terms(ground_truth, prediction)
    )
    np.testing.assert_allclose(got, (localization + confidence) / positives, rtol=1e-6)
    shown = [float(m.result()) for m in loss.components]
    np.testing.assert_allclose(
        shown, [localization / positives, confidence / positives, positives], rtol=1e-6
    )


def test_every_argument_counts():
    config = dataclasses.replace(SSD300_VOC, variances=(0.2, 0.3, 0.4, 0.5))
    ground_truth = random_truth(4, 2, 4)
    prediction = predictions(np.random.default_rng(5), 2, 8732)
    overlap = pairwise_iou(ground_truth[..., :4], BOXES).numpy()
    localization, confidence, positives = reference.multibox_loss(
        ground_truth,
        prediction,
        overlap,
        yxyx_to_cyxhw(BOXES).numpy(),
        config.variances,
        threshold=0.4,
        ratio=2,
    )
    loss = MultiBoxLoss(config, iou_threshold=0.4, negative_ratio=2.0, localization_weight=3.0)
    got = float(loss(ground_truth, prediction))
    np.testing.assert_allclose(got, (3 * localization + confidence) / positives, rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_no_row_of_ground_truth_in_a_whole_batch(jit):
    """`padded_batch` gives G = 0, known at run time only, for a batch without any object."""
    spec = [tf.TensorSpec([None, None, 5]), tf.TensorSpec([None, 8732, 8])]
    loss = tf.function(MultiBoxLoss(SSD300_VOC).__call__, input_signature=spec, jit_compile=jit)
    prediction = predictions(np.random.default_rng(7), 2, 8732)
    assert float(loss(tf.zeros([2, 0, 5]), tf.constant(prediction))) == 0
    assert float(loss(tf.constant(random_truth(6, 2, 3)), tf.constant(prediction))) > 0


def test_an_empty_batch_counts_for_nothing():
    """Keras ends an evaluation of unknown length with an empty batch."""
    loss = MultiBoxLoss(SSD300_VOC)
    prediction = predictions(np.random.default_rng(7), 2, 8732)
    loss(random_truth(6, 2, 3), prediction)
    before = [float(m.result()) for m in loss.components]
    loss(np.zeros((0, 3, 5), "f"), prediction[:0])
    assert [float(m.result()) for m in loss.components] == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.1, 0.1, 0.5, 0.5, 4], "labels must be from 1 to the 3 classes.*4"),
        ([0.1, 0.1, 0.5, 0.5, -1], "labels must be from 1"),
        ([30.0, 30, 150, 150, 1], "fractions of the image.*150"),
        ([0.1, 0.1, np.nan, 0.5, 1], "fractions of the image"),
    ],
)
def test_refuses_ground_truth_out_of_range(row, message):
    ground_truth = np.array([[row, [0] * 5]], np.float32)
    prediction = predictions(np.random.default_rng(7), 1, 8732)
    loss = tf.function(MultiBoxLoss(SSD300_VOC).__call__)
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.compile(message, re.DOTALL)):
        loss(tf.constant(ground_truth), tf.constant(prediction))


def test_images_and_batches_without_objects_add_nothing():
    ground_truth = random_truth(6, 2, 3)
    prediction = predictions(np.random.default_rng(7), 2, 8732)
    loss = MultiBoxLoss(SSD300_VOC)
    alone = float(loss(ground_truth[:1], prediction[:1]))
    empty = ground_truth * np.array([1, 0], np.float32)[:, None, None]
    np.testing.assert_allclose(float(loss(empty, prediction)), alone, rtol=1e-6)
    assert float(loss(np.zeros((2, 3, 5), "f"), prediction)) == 0
    assert float(loss(np.zeros((2, 0, 5), "f"), prediction)) == 0


def test_gradients_are_finite_beside_padding_and_degenerate_boxes():
    ground_truth = np.array(
        [[[0.1, 0.1, 0.5, 0.5, 1], [0.3, 0.3, 0.3, 0.3, 2], [0] * 5]], np.float32
    )
    prediction = tf.Variable(predictions(np.random.default_rng(8), 1, 8732))
    with tf.GradientTape() as tape:
        loss = MultiBoxLoss(SSD300_VOC)(ground_truth, prediction)
    gradient = tape.gradient(loss, prediction).numpy()
    assert np.isfinite(gradient).all()
    rows = np.flatnonzero(np.abs(gradient[0]).sum(axis=1))
    positives = np.flatnonzero(np.abs(gradient[0, :, :4]).sum(axis=1))
    assert len(rows) == 4 * len(positives)  # three negatives each


@pytest.mark.parametrize("mode", ["graph", "xla", "float16"])
def test_same_value_in_every_mode(mode):
    ground_truth = random_truth(9, 2, 4)
    prediction = predictions(np.random.default_rng(10), 2, 8732)
    loss = MultiBoxLoss(SSD300_VOC)
    want = float(loss(ground_truth, prediction))
    if mode == "float16":
        got = loss(ground_truth, prediction.astype(np.float16))
        assert got.dtype == tf.float32
    else:
        compiled = tf.function(loss.__call__, jit_compile=mode == "xla")
        got = compiled(tf.constant(ground_truth), tf.constant(prediction))
    np.testing.assert_allclose(float(got), want, rtol=2e-3 if mode == "float16" else 1e-5)


def test_sample_weight_scales_each_image():
    ground_truth = random_truth(11, 2, 4)
    prediction = predictions(np.random.default_rng(12), 2, 8732)
    loss = MultiBoxLoss(SSD300_VOC, reduction="sum")
    first, second = loss.call(tf.constant(ground_truth), tf.constant(prediction)).numpy()
    got = float(loss(ground_truth, prediction, sample_weight=np.array([2.0, 0.0])))
    np.testing.assert_allclose(got, 2 * first, rtol=1e-6)
    assert second > 0


def test_round_trips_its_config():
    loss = MultiBoxLoss(SSD300_VOC, iou_threshold=0.4, negative_ratio=2.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, MultiBoxLoss)
    assert again.get_config() == loss.get_config()


def test_says_what_is_wrong():
    loss = MultiBoxLoss(SSD300_VOC)
    with pytest.raises(ValueError, match=r"8732 default boxes.*same config"):
        loss(np.zeros((1, 2, 5), "f"), np.zeros((1, 100, 8), "f"))
    with pytest.raises(ValueError, match=r"\[B, G, 5\]"):
        loss(np.zeros((1, 2, 4), "f"), np.zeros((1, 8732, 8), "f"))
    with pytest.raises(ValueError, match=r"iou_threshold \(=0\)"):
        MultiBoxLoss(SSD300_VOC, iou_threshold=0)
    with pytest.raises(ValueError, match=r"negative_ratio \(=-1\)"):
        MultiBoxLoss(SSD300_VOC, negative_ratio=-1)


@functools.cache
def compiled_loss(jit):
    loss = MultiBoxLoss(TINY)

    @tf.function(jit_compile=jit)
    def run(truth, prediction):
        with tf.GradientTape() as tape:
            tape.watch(prediction)
            value = loss(truth, prediction)
        return value, tape.gradient(value, prediction)

    return run


@pytest.mark.parametrize("case", [*golden.KINDS, "difficult_left_out"])
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_equals_the_original(case, jit):
    """Loss, gradients and selected boxes of the original's MultiBoxLoss layer."""
    kind, left_out = case.removesuffix("_left_out"), case.endswith("_left_out")
    truth = tf.constant(golden.padded_truth(kind, use_difficult=not left_out))
    value, gradient = compiled_loss(jit)(truth, tf.constant(golden.predictions(kind)))
    answers = golden.answers("losses")
    np.testing.assert_allclose(value, answers[f"{case}/loss"], rtol=2e-6)
    gradient = gradient.numpy().reshape(-1, 7)
    taking_part = np.flatnonzero(np.abs(gradient).sum(axis=1))
    assert taking_part.tolist() == answers[f"{case}/boxes"].tolist()
    np.testing.assert_allclose(gradient[taking_part], answers[f"{case}/gradient"], atol=1e-6)
