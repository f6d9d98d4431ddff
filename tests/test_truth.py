"""Ground truth in all accepted formats, with the loss alone and with `fit`."""

import numpy as np
import pytest
import tensorflow as tf

import ssd_keras
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16
from ssd_keras.truth import as_ground_truth, checked_truth, ground_truth
from tests.tiny import TINY

BOX = [0.1, 0.2, 0.6, 0.7]
ROWS = np.array([[[*BOX, 1], [0] * 5]], np.float32)


@pytest.fixture(scope="module")
def model():
    return ssd_vgg16(TINY, 2, width=1 / 16)


def compiled(model, loss=None, **options):
    model.compile("sgd", loss=loss or MultiBoxLoss(), **options)
    return model


def batches(truth, images=1):
    truth = tf.data.Dataset.from_tensor_slices(truth)
    return truth.map(lambda t: (tf.zeros([64, 64, 3]), t)).batch(images)


def test_joins_boxes_and_labels():
    truth = ground_truth([BOX], [2])
    assert truth.dtype == tf.float32
    np.testing.assert_allclose(truth, [[*BOX, 2]])
    assert ssd_keras.ground_truth is ground_truth
    assert ground_truth(np.zeros((0, 4)), np.zeros(0, int)).shape == (0, 5)


def test_a_batch_may_be_ragged_lists_or_padded_with_anything():
    want = [[[*BOX, 2], [*BOX, 1]], [[*BOX, 1], [0] * 5]]
    ragged = ground_truth(
        tf.ragged.constant([[BOX, BOX], [BOX]], ragged_rank=1), tf.ragged.constant([[2, 1], [1]])
    )
    lists = ground_truth([np.array([BOX, BOX]), np.array([BOX])], [np.array([2, 1]), np.array([1])])
    padded = [
        ground_truth([[BOX, BOX], [BOX, [fill] * 4]], [[2, 1], [1, fill]])
        for fill in (0, -1, -100, 2, 255)
    ]
    for truth in (ragged, lists, *padded):
        np.testing.assert_allclose(truth, want)


def test_works_in_a_tf_data_pipeline():
    data = tf.data.Dataset.from_tensors((np.array([BOX], np.float64), np.array([1])))
    np.testing.assert_allclose(next(iter(data.map(ground_truth))), [[*BOX, 1]])


def test_refuses_shapes():
    with pytest.raises(ValueError, match=r"boxes have shape \(4,\).*\[G, 4\]"):
        ground_truth(BOX, [1])
    with pytest.raises(ValueError, match="keys boxes, classes, but must have boxes and labels"):
        as_ground_truth({"boxes": [[BOX]], "classes": [[1]]})


WRONG = {
    "labels from 0": ([*BOX, 0], "labels must be from 1 to the 2 classes of the predictions"),
    "label too high": ([*BOX, 3], "labels must be from 1 to the 2 classes"),
    "no integer": ([1, *BOX], "labels must be from 1"),
    "pixels": ([10, 20, 60, 70, 1], "boxes must be fractions of the image"),
    "inside out": (
        [0.6, 0.2, 0.1, 0.7, 1],
        "boxes must be ymin, xmin, ymax, xmax, with ymin <= ymax",
    ),
    "not a number": ([0.1, float("nan"), 0.6, 0.7, 1], "boxes must be fractions"),
}


CASES = [("eager", case) for case in WRONG] + [
    ("fit", "labels from 0"),
    ("xla", "label too high"),
    ("arrays with xla", "pixels"),
    ("train_on_batch", "inside out"),
]


def run(model, way, truth):
    images = np.zeros((2, 64, 64, 3), np.float32)
    if way == "eager":
        MultiBoxLoss(TINY)(truth, tf.zeros([2, 380, 7]))
    elif way == "train_on_batch":
        compiled(model, jit_compile=False).train_on_batch(images, truth)
    elif way == "arrays with xla":
        compiled(model, jit_compile=True).fit(images, truth, verbose=0)
    else:
        compiled(model, jit_compile=way == "xla").fit(batches(truth, 2), verbose=0)


@pytest.mark.parametrize(("way", "case"), CASES)
def test_the_first_batch_refuses_wrong_rows_in_one_sentence(model, way, case):
    row, rule = WRONG[case]
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        run(model, way, np.array([[[*BOX, 1]], [row]], np.float32))
    message = str(caught.value)
    assert message.startswith(f"y_true: {rule}")
    assert "row 0 of image 1 in the batch is [" in message
    assert len(message.splitlines()) == 1
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_says_that_generators_are_not_checked_under_xla(model):
    def forever():
        while True:
            yield np.zeros((1, 64, 64, 3), np.float32), ROWS

    with pytest.warns(UserWarning, match="cannot be reported in a step that XLA compiles"):
        compiled(model, jit_compile=True).fit(
            forever(), steps_per_epoch=1, verbose=0, shuffle=False
        )


def test_boxes_without_area_and_rounding_are_let_through():
    truth = np.array([[[0.3, 0.3, 0.3, 0.4, 2], [-0.0005, 0, 1.0005, 1, 1]]], np.float32)
    np.testing.assert_array_equal(checked_truth(tf.constant(truth), 2), truth)


FORMS = {
    "array": ROWS,
    "float64": ROWS.astype(np.float64),
    "integers": np.array([[[0, 0, 1, 1, 1]]]),
    "dictionary": {"boxes": ROWS[..., :4], "labels": ROWS[..., 4].astype(np.int64)},
    "ragged": tf.RaggedTensor.from_tensor(ROWS[:, :1], ragged_rank=1),
    "ragged dictionary": {
        "boxes": tf.RaggedTensor.from_tensor(ROWS[:, :1, :4], ragged_rank=1),
        "labels": tf.RaggedTensor.from_tensor(tf.constant([[1]]), ragged_rank=1),
    },
    "padded with -1": np.array([[[*BOX, 1], [-1] * 5]], np.float32),
    "padded with 99": np.array([[[*BOX, 1], [99] * 5]], np.float32),
}


@pytest.mark.parametrize("form", FORMS)
def test_fit_takes_every_form(model, form):
    weights = model.get_weights()
    compiled(model)
    history = model.fit(batches(FORMS[form]), verbose=0).history
    assert history["positives"][0] > 0
    model.set_weights(weights)
    if form not in ("integers",):
        want = float(MultiBoxLoss(TINY)(ROWS, model(np.zeros((1, 64, 64, 3)))))
        np.testing.assert_allclose(history["loss"][0], want, rtol=1e-4)


def test_the_loss_takes_the_config_of_the_model(model):
    loss = MultiBoxLoss()
    with pytest.raises(ValueError, match="the loss has no config"):
        loss(ROWS, tf.zeros([1, 380, 7]))
    compiled(model, loss).evaluate(batches(ROWS), verbose=0)
    assert loss.config == TINY


def test_a_loss_of_another_config_is_refused(model):
    other = ssd_keras.SSDConfig(64, TINY.feature_maps, TINY.extra_layers, (0.1, 0.1, 0.1, 0.1))
    compiled(model, MultiBoxLoss(other))
    with pytest.raises(ValueError, match=r"the loss has the config .* but the model has") as caught:
        model.fit(batches(ROWS), verbose=0)
    assert "user code" not in str(caught.value)
    with pytest.raises(ValueError, match="the loss has the config SSD300_COCO"):
        MultiBoxLoss("SSD300_COCO").bind(ssd_keras.SSD300_VOC)


def test_a_saved_model_keeps_a_loss_without_config(model, tmp_path):
    compiled(model).fit(batches(ROWS), verbose=0)
    model.save(tmp_path / "model.keras")
    again = ssd_keras.model.load_model(tmp_path / "model.keras", compile=True)
    assert again.loss.config == TINY
