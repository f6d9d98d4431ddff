import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from peer_files import narrow, random_layers, write_file

from ssd_keras import import_weights
from ssd_keras.config import SSD300_COCO


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command, which builds the network of full width; here it is narrow, to be quick."""
    monkeypatch.setattr(import_weights, "ssd_vgg16", lambda *a, labels: narrow(*a, labels))

    def run(*arguments):
        with flagsaver.flagsaver():
            flags.FLAGS(["import_weights", *arguments])
            code = import_weights.main([])
        return code, *capsys.readouterr()

    return run


def test_the_command_writes_a_model_and_prints_the_report(tmp_path, run):
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 91)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    classes, out = tmp_path / "classes.txt", tmp_path / "out" / "model.keras"
    classes.write_text("person\nplatelet\n")
    arguments = [f"--weights={path}", f"--classes={classes}", f"--out={out}"]

    code, stdout, stderr = run(*arguments, "--config=SSD300_COCO")
    assert code is None, stderr
    assert "source: torchvision, found by its tensors" in stdout
    assert "backbone.extra.0.7.1.weight" in stdout
    assert "71 of 71 tensors used; layers: 30 loaded, 6 sliced, 0 fresh" in stdout
    model = keras.models.load_model(out)
    assert model.get_layer("predictions").labels == ("person", "platelet")
    fc7 = groups[0][14][0].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("fc7").kernel, fc7)


def test_weights_of_other_classes_and_tiling(tmp_path, run):
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 3)
    path = write_file(tmp_path, "lufficc", 300, "COCO", groups, scale)
    classes, theirs, out = (tmp_path / name for name in ("c.txt", "t.txt", "model.keras"))
    classes.write_text("platelet\n")
    theirs.write_text("person\nplatelet\n")
    arguments = [f"--weights={path}", f"--classes={classes}", f"--out={out}"]
    arguments += ["--config=SSD300_COCO", "--source_config=SSD300_COCO"]
    code, stdout, stderr = run(*arguments, f"--source_classes={theirs}")
    assert code is None, stderr
    assert "tiling: source_config, as told" in stdout
    bias = keras.models.load_model(out).get_layer("conv11_2_logits").bias.numpy().reshape(4, 2)
    np.testing.assert_array_equal(bias, groups[3][5][1].reshape(4, 3)[:, [0, 2]])
    code, _, stderr = run(*arguments)
    assert code == 1
    assert "model.keras) exists already" in stderr


def test_the_table_is_printed_once(tmp_path, run, caplog):
    caplog.set_level("INFO", logger="absl")
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 91)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    (tmp_path / "c.txt").write_text("person\n")
    arguments = [f"--weights={path}", f"--classes={tmp_path}/c.txt", f"--out={tmp_path}/m.keras"]
    _, stdout, _ = run(*arguments, "--config=SSD300_COCO")
    assert stdout.count("used: conv1_1/kernel") == 1
    assert "71 of 71 tensors used" in caplog.text
    assert "used: conv1_1/kernel" not in caplog.text
