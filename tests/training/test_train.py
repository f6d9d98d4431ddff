"""The command `train` passes every flag to the run.

--strategy is in test_devices.py, --service in test_data_service.py, and --weights_project,
--weights_labels and --weights_config in test_run.py.
"""

import json

import keras
import pytest

from ssd_keras.config_files import write_config
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.model import load_model
from tests.cli import in_process, loaded_command
from tests.processes import ssd_keras
from tests.tiny import TINY
from tests.training.runs import rows, vgg_file

RECIPE = {
    "iterations": 2,
    "batch_size": 1,
    "accumulate": 2,
    "normalize": "step",
    "optimizer": "sgd",
    "learning_rate": 2e-3,
    "boundaries": [1],
    "cosine": False,
    "warmup": 1,
    "momentum": 0.8,
    "weight_decay": 1e-4,
    "clip_norm": 7.0,
    "ema": 0.5,
    "augmentation": "flip_only",
    "use_difficult": False,
    "border_boxes": False,
    "max_boxes": 6,
    "freeze": ["conv1_*", "conv2_1"],
    "eval_every": 2,
    "seed": 3,
}


def run(folder, *arguments):
    return ssd_keras("train", "--records=records", "--weights=random", *arguments, cwd=folder)


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
    assert not model.loss.border_boxes
    optimizer = model.optimizer
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.5**0.5)  # of each batch
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


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command in this process, in a folder with record sets of three images of 64 pixels."""
    monkeypatch.chdir(tmp_path)
    write_config(TINY, "tiny.json")
    for name in ("mine", "voc07trainval", "voc12trainval", "voc07test"):
        write_records(draw_shapes(3, 0, image_size=64), tmp_path / name, SHAPE_LABELS, shards=1)
    with loaded_command("train") as module:
        yield lambda *flags: in_process(module, *flags)
    keras.config.set_dtype_policy("float32")


SMALL = ("--width=0.03", "--batch_size=1", "--warmup=0")


def test_your_own_data_by_a_recipe(command, tmp_path, capsys, monkeypatch):
    """0.6 epochs of 3 images in batches of 1 are 2 iterations. The second one trains all layers."""
    (tmp_path / "names.txt").write_text("\n".join(SHAPE_LABELS))
    vgg_file(tmp_path / "vgg.npz")
    flags = (
        "--recipe=laptop",
        "--records=mine",
        "--val_records=mine",
        "--labels=names.txt",
        "--config=tiny.json",
        "--weights=vgg.npz",
        "--epochs=0.6",
        "--unfreeze_at=1",
        "--metric=coco",
        "--jit_compile=off",
        "--width=0.0625",
        "--batch_size=1",
        "--warmup=0",
    )
    assert command(*flags) == 0
    out = capsys.readouterr().out
    assert "runs/laptop/best.keras" in out
    assert "iteration 2/2: loss" in out
    run = json.loads((tmp_path / "runs/laptop/run.json").read_text())
    recipe = run["recipe"]
    assert run["name"] == "laptop"
    assert run["weights"] == "vgg.npz"
    assert "project: caffe" in (tmp_path / "runs/laptop/weights.txt").read_text()
    assert (recipe["iterations"], recipe["eval_every"], recipe["unfreeze_at"]) == (2, 1, 1)
    assert recipe["freeze"] == ["conv1_*", "conv2_*"]
    assert (recipe["optimizer"], recipe["learning_rate"]) == ("adam", 2e-4)
    assert [row["iteration"] for row in rows(tmp_path / "runs/laptop")] == ["1", "2"]
    assert "val_ap50" in rows(tmp_path / "runs/laptop")[1]
    model = load_model(tmp_path / "runs/laptop/last.keras", compile=True)
    assert model.jit_compile is False
    assert all(layer.trainable for layer in model.layers)

    assert command(*flags, "--iterations=3") == 1
    assert "--iterations (=3) and --epochs (=0.6) both set" in capsys.readouterr().err
    flags = ("--recipe=laptop", "--records=mine", "--weights=random", "--config=tiny.json", *SMALL)
    assert command(*flags, "--gradient_limit=1e-9", "--run_dir=bad", "--iterations=2") == 1
    assert "limit 1e-09" in capsys.readouterr().err
    assert not (tmp_path / "bad/last.keras").exists()
    # Other tests train with XLA; it compiles this step for half a minute.
    compiled = []
    monkeypatch.setattr(keras.Model, "fit", lambda model, *_, **__: compiled.append(model))
    command(*flags, "--jit_compile=on", "--run_dir=xla", "--iterations=1")
    assert [model.jit_compile for model in compiled] == [True]


def test_a_recipe_of_the_paper(command, tmp_path, capsys):
    flags = ("--recipe=ssd300_voc07_expand", "--data=.", "--weights=random", *SMALL)
    assert command(*flags, "--iterations=1", "--run_dir=run") == 0
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert run["records"] == ["voc07trainval"]
    assert run["config"]["image_size"] == 300
    assert (run["recipe"]["boundaries"], run["recipe"]["iterations"]) == ([80_000, 100_000], 1)
    assert run["recipe"]["augmentation"] == "ssd"
    assert "val_mean_ap" in rows(tmp_path / "run")[0]  # on voc07test, as in the recipe


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--recipe=ssd300_voc7"], "--recipe (=ssd300_voc7): did you mean ssd300_voc07?"),
        (["--recipe=no_such"], "`ssd-keras recipes` lists them"),
        (["--recipe=finetune"], "--records is missing: the recipe finetune is for your own data"),
        (["--recipe=ssd300_voc07"], "--data is missing: the recipe ssd300_voc07 needs"),
        (["--recipe=ssd300_coco", "--data=."], "ssd-keras prepare --source=coco"),
        (
            ["--recipe=ssd300_voc0712_from_coco", "--data=.", "--width=0.03"],
            "./ssd300_coco.keras",
        ),
        (
            ["--records=mine", "--run_dir=r", "--weights=none.npz", "--width=0.03"],
            "none.npz",
        ),
        (["--records=mine", "--boundaries=1,x"], "--boundaries (=1,x) must be integers"),
    ],
)
def test_what_is_refused(flags, message, command, capsys):
    assert command(*flags) == 1
    assert message in capsys.readouterr().err
