"""The effects of single options of a run."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.data.records import read_samples
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import load_model
from ssd_keras.tiling import default_boxes
from ssd_keras.training import callbacks
from ssd_keras.training.recipe import Recipe
from ssd_keras.training.run import train
from ssd_keras.training.validation import EVALUATIONS
from tests.tiny import TINY
from tests.training.runs import RECIPE, narrow, rows

SGD = dataclasses.replace(
    RECIPE, optimizer="sgd", cosine=False, accumulate=1, eval_every=0, learning_rate=1e-3
)


def test_accumulation_can_normalize_as_one_large_batch(records, tmp_path):
    def trained(name, **changes):
        recipe = dataclasses.replace(SGD, iterations=1, augmentation="ssd", **changes)
        return train(narrow(), recipe, tmp_path / name, [records])

    large = trained("large", batch_size=4)
    step = trained("step", batch_size=2, accumulate=2, normalize="step")
    batch = trained("batch", batch_size=2, accumulate=2)

    def distance(a, b):
        pairs = zip(a.get_weights(), b.get_weights(), strict=True)
        return max(np.abs(x - y).max() for x, y in pairs)

    assert distance(large, step) < 1e-6
    assert distance(large, batch) > 1e-5
    losses = [float(rows(tmp_path / name)[0]["loss"]) for name in ("large", "step", "batch")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert abs(losses[0] - losses[2]) > 1e-3


class Watch(keras.callbacks.Callback):
    """A callback of the user, which stores kernels and learning rates."""

    def __init__(self):
        super().__init__()
        self.kernels, self.rates = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_epoch_end(self, epoch, logs=None):
        assert "loss" in logs
        self.kernels.append([self.model.get_layer(n).kernel.numpy() for n in ("conv1_1", "fc7")])


def test_layers_thaw_in_a_second_phase(records, tmp_path):
    recipe = dataclasses.replace(
        SGD, iterations=4, eval_every=2, freeze=("conv1_*",), unfreeze_at=2, warmup=2
    )
    model, watch = narrow(), Watch()
    start = model.get_layer("conv1_1").kernel.numpy()
    trained = train(model, recipe, tmp_path / "run", [records], callbacks=[watch])
    (frozen, moving), (thawed, _) = watch.kernels
    np.testing.assert_array_equal(frozen, start)
    assert not np.array_equal(moving, narrow().get_layer("fc7").kernel.numpy())
    assert not np.array_equal(thawed, start)
    assert int(trained.optimizer.iterations) == 4
    assert trained.get_layer("conv1_1").trainable
    # Each phase begins with a warm-up from a tenth of 1e-3.
    np.testing.assert_allclose(watch.rates, [1e-4, 1e-4], rtol=1e-5)

    # A run that stops between the two phases resumes with the second phase and with the momentum.
    first = dataclasses.replace(recipe, iterations=2)
    train(narrow(), first, tmp_path / "two", [records])
    resumed = train(narrow(), recipe, tmp_path / "two", [records])
    for a, b in zip(
        [*trained.variables, *trained.optimizer.variables],
        [*resumed.variables, *resumed.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6, err_msg=a.path)


def test_the_best_checkpoint_holds_the_averaged_weights(records, tmp_path):
    recipe = dataclasses.replace(SGD, iterations=2, eval_every=1, ema=0.75, learning_rate=0.05)
    watch = Watch()
    train(narrow(), recipe, tmp_path, [records], callbacks=[watch])
    (_, first), (_, second) = watch.kernels
    best, last = (load_model(tmp_path / name) for name in ("best.keras", "last.keras"))
    # The average begins with the weights after the first step.
    expected = 0.75 * first + 0.25 * second
    np.testing.assert_allclose(best.get_layer("fc7").kernel, expected, atol=1e-7)
    np.testing.assert_array_equal(last.get_layer("fc7").kernel, second)
    assert np.abs(expected - second).max() > 1e-5


def test_coco_ap_and_pictures(records, tmp_path):
    recipe = dataclasses.replace(SGD, iterations=1, metric="coco")
    train(narrow(), recipe, tmp_path, [records], val_records=records)
    (row,) = rows(tmp_path)
    assert {"val_mean_ap", "val_ap50", "val_ap75", "images_per_second"} <= row.keys()
    assert 0 <= float(row["val_mean_ap"]) <= float(row["val_ap50"]) <= 1
    (events,) = (tmp_path / "tensorboard").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(events)).as_numpy_iterator():
        for value in tf.compat.v1.Event.FromString(record).summary.value:
            found[value.tag] = value.tensor
    assert {"loss", "val_mean_ap", "detections"} <= found.keys()
    picture = tf.io.decode_png(found["detections"].string_val[2])  # after width and height
    assert picture.shape[2] == 3
    assert picture.shape[0] > 60


@pytest.mark.parametrize(("metric", "ap"), [("voc", 2 / 11), ("voc_area", 1 / 6)])
def test_voc_ap_by_hand(metric, ap, records):
    """One of three blue objects is found, and none of two red ones.

    For blue, a recall of 1/3 reaches 4 of the 11 levels, and the area is 1/3. The AP of red is 0,
    so the mean over both classes is half of these values.
    """
    truth = list(read_samples(records))
    empty = {"boxes": np.zeros([0, 4]), "scores": np.zeros(0), "classes": np.zeros(0, int)}
    found = [empty] * 5
    blue = next(i for i, sample in enumerate(truth) if sample.labels[0] == 2)
    found[blue] = {"boxes": truth[blue].boxes, "scores": np.ones(1), "classes": np.array([2])}
    evaluation = EVALUATIONS[metric](narrow(), records, 2)
    assert evaluation.measure(found, truth) == {"val_mean_ap": pytest.approx(ap)}


def test_without_border_boxes_those_outside_do_not_count():
    corners = default_boxes(TINY)
    crosses = np.any((corners < 0) | (corners > 1), axis=1)
    assert 0 < crosses.sum() < len(crosses)
    rng = np.random.default_rng(0)
    truth = tf.constant([[[0.2, 0.2, 0.8, 0.9, 1.0]]])
    predictions = rng.normal(size=(1, len(crosses), 7)).astype("f")
    loss, whole = MultiBoxLoss(TINY, border_boxes=False), MultiBoxLoss(TINY)
    before, before_whole = (float(x(truth, predictions)) for x in (loss, whole))
    predictions[:, crosses, 4] -= 50  # the model is certain that there is an object
    assert float(loss(truth, predictions)) == before
    assert float(whole(truth, predictions)) > before_whole + 1
    assert MultiBoxLoss.from_config(loss.get_config()).border_boxes is False


def test_the_bar_by_hand(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock[0])
    bar = callbacks.Progress(iterations=20, done=4, batch_size=8, accumulate=2)
    bar.on_epoch_begin(0)
    for batch in range(12):
        bar.on_train_batch_begin(batch)
        clock[0] += 4.0
    clock[0] += 1000.0  # an evaluation
    # A batch of 8 images takes 4 s. 4 + 6 of 20 iterations are done, and 20 batches remain.
    line = bar._line({"loss": 1.5, "val_mean_ap": 0.25})
    assert line == "iteration 10/20: loss 1.5000, AP 0.2500, 2.0 images/s, 0:01:20 left"
    bar._terminal = True
    assert "20: 2.0 images/s" in bar._line({})
    assert bar._line({"loss": 1.5}).startswith("[==========          ] iteration 10/20: loss")


def test_default_boxes_of_one_square():
    """A feature map without the second square: a square of min_size, and ratios 2 and 1/2."""
    maps = tuple(dataclasses.replace(m, max_size=None) for m in TINY.feature_maps[3:])
    config = dataclasses.replace(TINY, feature_maps=maps)
    root = np.sqrt(2)
    sides = 44 / 64 * np.array([[1, 1], [1 / root, root], [root, 1 / root]])
    corners = np.concatenate([0.5 - sides / 2, 0.5 + sides / 2], axis=1)
    np.testing.assert_allclose(default_boxes(config), corners, rtol=1e-5)
    assert config.num_default_boxes == 3


def test_evaluations_are_a_twentieth_by_default():
    assert Recipe(iterations=100, eval_every=0).resolved(1).eval_every == 5
