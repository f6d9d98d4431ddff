"""The train command: that every flag reaches the run."""

import json
import subprocess
import sys

import keras

from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.model import load_model

RECIPE = {
    "iterations": 2,
    "batch_size": 1,
    "accumulate": 2,
    "optimizer": "sgd",
    "learning_rate": 2e-3,
    "boundaries": [1],
    "cosine": False,
    "warmup": 1,
    "momentum": 0.8,
    "weight_decay": 1e-4,
    "clip_norm": 7.0,
    "augmentation": "flip_only",
    "use_difficult": False,
    "freeze": ["conv1_*", "conv2_1"],
    "eval_every": 2,
    "seed": 3,
}


def run(folder, *arguments):
    command = [sys.executable, "-m", "ssd_keras", "train", "--records=records", "--weights=random"]
    command += arguments
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def flag(name, value):
    if isinstance(value, bool):
        return f"--{'' if value else 'no'}{name}"
    return f"--{name}={','.join(map(str, value)) if isinstance(value, list) else value}"


def test_flags_reach_the_run(tmp_path):
    write_records(draw_shapes(3, 0, image_size=64), tmp_path / "records", SHAPE_LABELS, shards=1)
    flags = [flag(name, value) for name, value in RECIPE.items()]
    done = run(tmp_path, "--run_dir=run", "--width=0.03", "--precision=mixed_bfloat16", *flags)
    assert done.returncode == 0, done.stderr
    assert "run/best.keras" in done.stdout
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert {name: recipe[name] for name in RECIPE} == RECIPE
    for name in ("history.csv", "history.png", "tensorboard"):
        assert (tmp_path / "run" / name).exists()

    model = load_model(tmp_path / "run" / "last.keras", compile=True)
    assert model.labels == tuple(SHAPE_LABELS)
    assert model.get_layer("conv1_1").kernel.shape[-1] == 8
    assert model.get_layer("conv3_1").compute_dtype == "bfloat16"
    frozen = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    assert frozen == ["conv1_1", "conv1_2", "conv2_1"]
    optimizer = model.optimizer
    assert int(optimizer.iterations) == 2
    assert (optimizer.momentum, optimizer.l2, optimizer.global_clipnorm) == (0.8, 1e-4, 7.0)
    schedule = keras.saving.deserialize_keras_object(optimizer.get_config()["learning_rate"])
    assert (schedule.learning_rate, schedule.warmup) == (2e-3, 1)
    assert tuple(schedule.boundaries) == (1,)


def test_stray_words_are_refused(tmp_path):
    done = run(tmp_path, "other_records", "--run_dir=run")
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("error: other_records: train takes flags only")
    )
    assert not (tmp_path / "run").exists()
