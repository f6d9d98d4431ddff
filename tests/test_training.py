import csv
import dataclasses
import io
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from ssd_keras import callbacks
from ssd_keras.model import ssd_vgg16
from ssd_keras.records import Sample, write_records
from ssd_keras.training import Recipe, train
from tests.tiny import TINY

LABELS = ("red", "blue")
RECIPE = Recipe(
    iterations=4,
    batch_size=2,
    eval_every=2,
    optimizer="adam",
    boundaries=(),
    augmentation="flip_only",
)


def samples(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        image = rng.integers(0, 255, (60, 80, 3)).astype(np.uint8)
        image[10:40, 20:60] = (255, 0, 0) if i % 2 else (0, 0, 255)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        yield Sample(
            image=file.getvalue(),
            image_id=f"image {i}",
            height=60,
            width=80,
            boxes=np.array([[10 / 60, 20 / 80, 40 / 60, 60 / 80]], np.float32),
            labels=np.array([2 - i % 2]),
            difficult=np.array([False]),
        )


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    directory = tmp_path_factory.mktemp("records") / "train"
    write_records(samples(5), directory, LABELS, shards=2)
    return directory


def narrow(config=TINY, labels=LABELS):
    keras.utils.set_random_seed(0)
    return ssd_vgg16(config, len(labels), width=1 / 16, labels=labels)


ACCUMULATED = dataclasses.replace(RECIPE, optimizer="sgd", accumulate=2)


@pytest.fixture(scope="module")
def finished(records, tmp_path_factory):
    """A whole run: its model and its folder."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    return train(narrow(), RECIPE, run_dir, [records], val_records=records), run_dir


def rows(run_dir):
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def finished_accumulated(records, tmp_path_factory):
    """The same with two batches a step."""
    run_dir = tmp_path_factory.mktemp("runs") / "accumulated"
    return train(narrow(), ACCUMULATED, run_dir, [records], val_records=records), run_dir


class KillAt(callbacks.Guard):
    """A guard that ends the run in the middle of its second span."""

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 3:
            raise Killed


@pytest.mark.parametrize(
    ("uninterrupted", "recipe"), [("finished", RECIPE), ("finished_accumulated", ACCUMULATED)]
)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    uninterrupted, recipe, records, tmp_path, monkeypatch, request
):
    with monkeypatch.context() as patched:
        patched.setattr("ssd_keras.training.Guard", KillAt)
        with pytest.raises(Killed):
            train(narrow(), recipe, tmp_path, [records], val_records=records)
    assert [row["iteration"] for row in rows(tmp_path)] == ["2"]
    again = train(narrow(), recipe, tmp_path, [records], val_records=records)
    whole, run_dir = request.getfixturevalue(uninterrupted)
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    ours, theirs = rows(run_dir), rows(tmp_path)
    assert [row["iteration"] for row in theirs] == ["2", "4"]
    for name in ("loss", "learning_rate", "positives", "val_mean_ap"):
        np.testing.assert_allclose(float(ours[1][name]), float(theirs[1][name]), rtol=1e-4)


def test_a_finished_run_is_left_as_it_is(finished, records):
    model, run_dir = finished
    before = (run_dir / "last.keras").stat().st_mtime_ns
    again = train(narrow(), RECIPE, run_dir, [records], val_records=records)
    assert (run_dir / "last.keras").stat().st_mtime_ns == before
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])


def test_a_run_says_what_it_is(finished):
    _, run_dir = finished
    run = json.loads((run_dir / "run.json").read_text())
    assert run["recipe"]["iterations"] == 4
    assert run["labels"] == list(LABELS)
    best = keras.saving.load_model(run_dir / "best.keras")
    assert not best.compiled
    assert best.get_layer("predictions").labels == LABELS


def test_accumulated_batches_are_those_of_one_larger_step(records, tmp_path, monkeypatch):
    """Two batches a step look at twice the pictures: 4 steps of 2 x 2 take batches 0 to 7."""
    seen = []

    class Count(callbacks.Guard):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            seen.append(self._next_batch)

    monkeypatch.setattr("ssd_keras.training.Guard", Count)
    train(narrow(), ACCUMULATED, tmp_path, [records])
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["iteration"] for row in rows(tmp_path)] == ["2", "4"]


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

    monkeypatch.setattr("ssd_keras.pipeline.train_dataset", asked)
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


def test_says_what_is_wrong(finished, records, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files but no run.json"):
        train(narrow(), RECIPE, tmp_path, [records])
    with pytest.raises(ValueError, match=r"labels \('red', 'blue'\).*num_classes \(=3\)"):
        train(narrow(labels=("a", "b", "c")), RECIPE, tmp_path / "x", [records])
    other = narrow(dataclasses.replace(TINY, clip=True))
    with pytest.raises(ValueError, match="holds a run with another config"):
        train(other, RECIPE, finished[1], [records])
    with pytest.raises(ValueError, match=r"iterations \(=5\) must be a multiple of eval_every"):
        Recipe(iterations=5, eval_every=2)
    for name, value in (
        ("optimizer", "lion"),
        ("augmentation", "mosaic"),
        ("accumulate", 0),
        ("warmup", -1),
        ("clip_norm", -1.0),
        ("momentum", 1.0),
    ):
        with pytest.raises(ValueError, match=rf"{name} \(='?{value}'?\) must"):
            Recipe(**{name: value})
    frozen = dataclasses.replace(RECIPE, freeze=("conv_1",))
    with pytest.raises(ValueError, match=r"freeze \(='conv_1'\) matches no layer"):
        train(narrow(), frozen, tmp_path / "y", [records])
    unnamed = ssd_vgg16(TINY, 2, width=1 / 16)
    with pytest.raises(ValueError, match="val_records need class names"):
        train(unnamed, RECIPE, tmp_path / "z", [records], val_records=records)


def test_the_command_reports_errors_in_one_line(records, tmp_path):
    command = [sys.executable, "-m", "ssd_keras.train", "--run_dir", str(tmp_path / "r")]
    got = subprocess.run(
        [*command, "--records", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert got.returncode == 1
    assert "Traceback" not in got.stderr
    assert got.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "none" in got.stderr


def test_mixed_precision_trains(records, tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        recipe = dataclasses.replace(RECIPE, optimizer="sgd", iterations=2, clip_norm=1.0)
        train(narrow(), recipe, tmp_path, [records])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(float(rows(tmp_path)[0]["loss"]))
