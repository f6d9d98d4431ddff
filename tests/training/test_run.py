import dataclasses
import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.config import SSD300_VOC
from ssd_keras.data import epochs, pipeline
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.matching import match
from ssd_keras.model import ssd_vgg16
from ssd_keras.tiling import default_boxes
from ssd_keras.training import callbacks, checkpoint
from ssd_keras.training.optimizer import CaffeSGD
from ssd_keras.training.recipe import Recipe
from ssd_keras.training.run import train
from tests.processes import python, ssd_keras
from tests.tiny import TINY
from tests.training.runs import LABELS, RECIPE, narrow, rows, vgg_file


class Killed(Exception):
    pass


class KillAt(callbacks.Guard):
    """A guard that kills the run between its two checkpoints."""

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        if int(self.model.optimizer.iterations) == 3:
            raise Killed


def test_a_killed_run_ends_as_an_uninterrupted_one(finished, records, tmp_path, monkeypatch):
    """The run has 4 steps of 2 batches. It was killed after the checkpoint of batches 0 to 3."""
    seen = []

    class Count(callbacks.Guard):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(self._next_batch)
            super().on_train_batch_begin(batch, logs)

    with monkeypatch.context() as patched:
        patched.setattr("ssd_keras.training.run.Guard", KillAt)
        with pytest.raises(Killed):
            train(narrow(), RECIPE, tmp_path, [records], val_records=records)
    assert [row["iteration"] for row in rows(tmp_path)] == ["2"]
    monkeypatch.setattr("ssd_keras.training.run.Guard", Count)
    again = train(narrow(), RECIPE, tmp_path, [records], val_records=records)
    assert seen == [4, 5, 6, 7]
    whole, run_dir = finished
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    ours, theirs = rows(run_dir), rows(tmp_path)
    assert [row["iteration"] for row in theirs] == ["2", "4"]
    rates = [float(row["learning_rate"]) for row in ours]
    np.testing.assert_allclose(rates, [5e-4, 0], atol=1e-9)  # a cosine from 1e-3: half and end
    for name in ("loss", "learning_rate", "positives", "val_mean_ap"):
        np.testing.assert_allclose(float(ours[1][name]), float(theirs[1][name]), rtol=1e-4)


def test_a_finished_run_is_left_as_it_is(finished, records):
    model, run_dir = finished
    before = (run_dir / "last.keras").stat().st_mtime_ns
    again = train(narrow(), RECIPE, run_dir, [records], val_records=records)
    assert (run_dir / "last.keras").stat().st_mtime_ns == before
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])


def test_a_finished_run_with_an_overflowed_batch_is_left_as_it_is(copied, records):
    """In mixed_float16 such a batch does not count as a step, so the checkpoint has one fewer."""
    last = keras.saving.load_model(copied / "last.keras")
    last.optimizer._iterations.assign_sub(1)
    last.save(copied / "last.keras")
    before = (copied / "last.keras").stat().st_mtime_ns
    train(narrow(), RECIPE, copied, [records], val_records=records)
    assert (copied / "last.keras").stat().st_mtime_ns == before


def test_a_run_says_what_it_is(finished):
    _, run_dir = finished
    run = json.loads((run_dir / "run.json").read_text())
    assert run["recipe"]["iterations"] == 4
    assert run["labels"] == list(LABELS)
    best = keras.saving.load_model(run_dir / "best.keras")
    assert not best.compiled
    assert best.labels == LABELS


def test_frozen_layers_do_not_learn(records, tmp_path):
    model = narrow()
    before = {v.path: v.numpy() for v in model.trainable_variables}
    recipe = dataclasses.replace(RECIPE, freeze=("conv1_*", "conv2_1"), iterations=2)
    train(model, recipe, tmp_path / "run", [records])
    changed = {v.path for v in model.variables if not np.array_equal(before[v.path], v.numpy())}
    assert "conv2_2/kernel" in changed
    assert not {p for p in changed if p.startswith(("conv1_", "conv2_1"))}


def test_the_pipeline_is_asked_for_what_the_run_is(records, tmp_path, monkeypatch):
    def asked(*arguments, **options):
        raise Killed(options)

    monkeypatch.setattr("ssd_keras.data.pipeline.train_dataset", asked)
    recipe = dataclasses.replace(RECIPE, max_boxes=7, use_difficult=False, seed=3)
    with pytest.raises(Killed) as caught:
        train(narrow(), recipe, tmp_path, [records], service="grpc://host:1")
    (options,) = caught.value.args
    assert (options["max_boxes"], options["service"]) == (7, "grpc://host:1")
    assert (options["use_difficult"], options["seed"]) == (False, 3)
    assert (options["augmentation"], options["repeat"]) == ("flip_only", True)


def test_guard_names_the_images(records, tmp_path):
    with pytest.raises(FloatingPointError, match=r"batch 0: .*limit 1e-09.*image \d, image \d"):
        train(narrow(), RECIPE, tmp_path / "run", [records], gradient_limit=1e-9)


def test_what_a_killed_writer_left_is_removed(copied, records):
    (copied / ".77.run.json").write_text("{")
    (copied / ".77.last.keras").write_bytes(b"half of it")
    model = narrow()
    train(model, RECIPE, copied, [records], val_records=records)
    assert not list(copied.glob(".*"))
    for text in ("{", "{}", "[1]", '{"recipe": 1}'):
        (copied / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json is damaged"):
            train(model, RECIPE, copied, [records], val_records=records)


def test_a_damaged_checkpoint_is_named(copied, records):
    (copied / "last.keras").write_bytes(b"half of it")
    (copied / "previous.keras").unlink()
    with pytest.raises(ValueError, match=r"last\.keras is damaged or not a \.keras file"):
        train(narrow(), RECIPE, copied, [records], val_records=records)


def test_guard_stops_at_a_loss_that_is_no_number(records):
    dense = keras.layers.Dense(1)
    dense.build((None, 1))
    model = keras.Sequential([dense])
    model.compile(CaffeSGD(1e-3))
    model.optimizer.build(dense.trainable_variables)
    guard = callbacks.Guard(1e6, [records], 2, 0, first_batch=1)
    guard.set_model(model)
    guard.on_epoch_begin(0)
    for batch, value in enumerate((3.0, float("nan"), 4.0)):
        guard.on_train_batch_begin(batch)
        model.optimizer.apply([tf.fill(v.shape, value) for v in dense.trainable_variables])
    names = ", ".join(epochs.batch_image_ids([records], 2, 0, 2))
    with pytest.raises(FloatingPointError, match=rf"batch 2: .*\(=nan.* loss .*\(=5\).*{names}"):
        guard.on_epoch_end(0, {"loss": 5.0})
    # The mean loss is NaN, but all gradients are finite. All batches of the epoch are named.
    guard.on_epoch_begin(1)
    guard.on_train_batch_begin(0)
    model.optimizer.apply([tf.ones(v.shape) for v in dense.trainable_variables])
    with pytest.raises(FloatingPointError, match=r"batch 4: .* loss .*\(=nan\)"):
        guard.on_epoch_end(1, {"loss": float("nan")})


def test_the_guard_stops_just_above_its_limit(records):
    """A kernel and a bias with the gradients 60 and 80 have the norm 100."""
    dense = keras.layers.Dense(1)
    dense.build((None, 1))
    model = keras.Sequential([dense])
    model.compile(CaffeSGD(1e-3))
    model.optimizer.build(dense.trainable_variables)
    guard = callbacks.Guard(100.0, [records], 2, 0)
    guard.set_model(model)
    for kernel in (60.0, 60.2):
        guard.on_epoch_begin(0)
        guard.on_train_batch_begin(0)
        model.optimizer.apply([tf.constant([[kernel]]), tf.constant([80.0])])
        if kernel == 60.0:
            guard.on_epoch_end(0, {"loss": 3.0})
    # sqrt(60.2^2 + 80^2) = 100.12
    with pytest.raises(FloatingPointError, match=r"gradient norm \(=100\.12, limit 100\)"):
        guard.on_epoch_end(0, {"loss": 3.0})


def test_best_is_the_one_of_the_highest_ap(tmp_path):
    model = narrow()
    model.compile(RECIPE.make_optimizer(), MultiBoxLoss(TINY))
    model.optimizer.build(model.trainable_variables)
    writer = checkpoint.Checkpoint(tmp_path)
    writer.set_model(model)
    writer.on_train_begin()
    bias = model.get_layer("conv1_1").bias
    for epoch, ap in enumerate((0.5, 0.2, 0.7, 0.6)):
        bias.assign(np.full(bias.shape, epoch))
        writer.on_epoch_end(epoch, {"loss": 1.0, "val_mean_ap": ap})
    for name, epoch in (("best.keras", 2), ("last.keras", 3)):
        saved = keras.saving.load_model(tmp_path / name, compile=False)
        assert float(saved.get_layer("conv1_1").bias[0]) == epoch


def test_recipe_reaches_dataset_and_optimizer(records, tmp_path, monkeypatch):
    given = {}

    def stop(records, config, batch_size, **arguments):
        given.update(arguments, batch_size=batch_size)
        raise Killed

    monkeypatch.setattr("ssd_keras.data.pipeline.train_dataset", stop)
    recipe = Recipe(
        iterations=8,
        batch_size=3,
        eval_every=4,
        augmentation="none",
        seed=5,
        use_difficult=False,
        learning_rate=0.02,
        warmup=2,
        cosine=True,
        clip_norm=7.0,
        momentum=0.8,
        weight_decay=1e-4,
    )
    model = narrow()
    with pytest.raises(Killed):
        train(model, recipe, tmp_path, [records])
    expected = {"batch_size": 3, "augmentation": "none", "seed": 5, "use_difficult": False}
    assert {name: given[name] for name in expected} == expected
    assert given["repeat"]
    optimizer = model.optimizer
    assert (optimizer.momentum, optimizer.l2, optimizer.global_clipnorm) == (0.8, 1e-4, 7.0)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 1, 4, 8)]
    # A warm-up from a tenth in 2 steps, times half a cosine in 8: (1 + cos(pi / 8)) / 2 = .9619.
    np.testing.assert_allclose(rates, [0.002, 0.011 * 0.9619, 0.01, 0], rtol=1e-3, atol=1e-9)


def test_fit_with_validation_counts_every_batch_once(records):
    """As in a Keras script. The test fails if Keras logs a warning."""
    model = narrow()
    model.compile("adam", MultiBoxLoss(TINY))
    data = pipeline.train_dataset(records, TINY, 2)
    held_out = pipeline.eval_dataset(records, TINY, 2)
    history = model.fit(data, validation_data=held_out, epochs=2, verbose=0, shuffle=False)
    boxes = default_boxes(TINY)
    positives = [int(tf.reduce_sum(tf.cast(match(t, boxes) >= 0, tf.int32))) for _, t in held_out]
    assert len(positives) == 3
    np.testing.assert_allclose(
        history.history["val_positives"], [np.mean(positives)] * 2, rtol=1e-6
    )


def test_says_what_is_wrong(finished, records, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files but no run.json"):
        train(narrow(), RECIPE, tmp_path, [records])
    with pytest.raises(ValueError, match=r"labels \('red', 'blue'\).*num_classes \(=3\)"):
        train(narrow(labels=("a", "b", "c")), RECIPE, tmp_path / "x", [records])
    other = narrow(dataclasses.replace(TINY, clip=True))
    with pytest.raises(ValueError, match="holds a run with another config"):
        train(other, RECIPE, finished[1], [records])
    changed = dataclasses.replace(RECIPE, learning_rate=0.5, seed=7)
    message = r"another recipe learning_rate \(0.001, not 0.5\); another recipe seed \(0, not 7\):"
    with pytest.raises(ValueError, match=message):
        train(narrow(), changed, finished[1], records)
    for name, value in (
        ("optimizer", "lion"),
        ("augmentation", "mosaic"),
        ("accumulate", 0),
        ("learning_rate", 0.0),
        ("warmup", -1),
        ("clip_norm", -1.0),
        ("clip_norm", float("nan")),
        ("clip_norm", float("inf")),
        ("weight_decay", float("nan")),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("momentum", float("nan")),
        ("ema", float("nan")),
        ("epochs", float("inf")),
        ("metric", "map"),
        ("normalize", "none"),
        ("unfreeze_at", 3),
    ):
        with pytest.raises(ValueError, match=rf"{name} \(='?{value}'?\) (must|needs)"):
            Recipe(**{name: value})
    frozen = dataclasses.replace(RECIPE, freeze=("*",))
    with pytest.raises(ValueError, match=r"freeze .* leaves nothing that learns"):
        train(narrow(), frozen, tmp_path / "y", [records])
    frozen = dataclasses.replace(RECIPE, freeze=("conv_1",))
    with pytest.raises(ValueError, match=r"freeze \(='conv_1'\) matches no layer"):
        train(narrow(), frozen, tmp_path / "y", [records])
    unnamed = ssd_vgg16(TINY, 2, width=1 / 16)
    with pytest.raises(ValueError, match="val_records need class names"):
        train(unnamed, RECIPE, tmp_path / "z", [records], val_records=records)


def test_the_command_reports_errors_in_one_line(records, tmp_path):
    got = ssd_keras("train", f"--run_dir={tmp_path / 'r'}", f"--records={tmp_path / 'none'}")
    assert got.returncode == 1
    assert "Traceback" not in got.stderr
    assert got.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "none" in got.stderr


def test_a_run_says_what_it_started_from(records, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: None)  # only the start matters
    path, other = tmp_path / "vgg.npz", tmp_path / "other.npz"
    vgg_file(path)
    run_dir = tmp_path / "run"
    start = {"weights": path, "weights_project": "caffe"}
    model = train(narrow(), RECIPE, run_dir, [records], **start)
    kernel = np.load(path)["conv1_1/0"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("conv1_1").kernel, kernel)
    assert json.loads((run_dir / "run.json").read_text())["weights"] == str(path)
    report = (run_dir / "weights.txt").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in report
    assert "project: caffe, as given" in report
    model.optimizer.build(model.trainable_variables)
    model.save(run_dir / "last.keras")
    path.unlink()  # a resumed run does not need the file
    resumed = train(narrow(), RECIPE, run_dir, [records], **start)
    np.testing.assert_array_equal(resumed.get_layer("conv1_1").kernel, kernel)
    for weights in (other, None):
        with pytest.raises(ValueError, match="holds a run with another weights"):
            train(narrow(), RECIPE, run_dir, [records], weights=weights)


# The command `train` without the training: it only loads the weights.
START = """
import sys
from ssd_keras.commands import common, train
from ssd_keras.weights.load import load_weights
from tests.processes import python, ssd_keras

def start(model, *_, **given):
    print(load_weights(model, **{k: v for k, v in given.items() if k.startswith("weights")}))

train.train, train._plot = start, lambda: None
common.run(train, "train", sys.argv[1:])
"""


def test_the_command_starts_from_an_ssd_of_other_classes(records, tmp_path):
    theirs = ssd_vgg16(SSD300_VOC, 2, width=1 / 32, labels=("dog", "red"))
    theirs.save_weights(tmp_path / "theirs.weights.h5")  # has neither classes nor tiling
    (tmp_path / "classes.txt").write_text("dog\nred\n")
    words = [f"--records={records}", "--run_dir=run"]
    words += ["--weights=theirs.weights.h5", "--weights_project=ssd_keras", "--width=0.03125"]
    words += ["--weights_labels=classes.txt", "--weights_config=SSD300_VOC"]
    done = python(START, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "project: ssd_keras, as given" in done.stdout
    assert "tiling: weights_config, as given" in done.stdout
    assert "sliced: background and 1 of the file's 2 classes; fresh: 1" in done.stdout


def test_what_does_not_work_on_several_devices_is_refused(tmp_path, monkeypatch):
    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 2)
    with pytest.raises(ValueError, match=r"accumulate \(=2\) must be 1 on .* \(here 2\)"):
        train(narrow(), RECIPE, tmp_path / "run", ["records"])
    model = narrow()
    model.dtype_policy = "mixed_float16"
    with pytest.raises(ValueError, match=r"precision \(=mixed_float16\) is not allowed on"):
        train(model, dataclasses.replace(RECIPE, accumulate=1), tmp_path / "run", ["records"])
    assert not (tmp_path / "run").exists()


def test_mixed_precision_trains(records, tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        recipe = dataclasses.replace(RECIPE, optimizer="sgd", iterations=2, clip_norm=1.0)
        train(narrow(), recipe, tmp_path, [records])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(float(rows(tmp_path)[0]["loss"]))
