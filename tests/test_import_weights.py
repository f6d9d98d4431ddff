import subprocess
import sys

import keras
import numpy as np
from peer_files import narrow, random_layers, write_file

from ssd_keras.config import SSD300_COCO

# The command builds the network of full width; here it is narrow, to be quick.
RUN = """
import functools
from absl import app
from ssd_keras import import_weights as command
command.ssd_vgg16 = functools.partial(command.ssd_vgg16, width=1 / 8)
app.run(command.main)
"""


def run(*flags):
    command = [sys.executable, "-c", RUN, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_a_model_and_prints_the_report(tmp_path):
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 91)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    classes, out = tmp_path / "classes.txt", tmp_path / "out" / "model.keras"
    classes.write_text("person\nplatelet\n")
    flags = [f"--weights={path}", f"--classes={classes}", f"--out={out}"]

    done = run(*flags, "--config=SSD300_COCO")
    assert done.returncode == 0, done.stderr
    assert "source: torchvision, found by its tensors" in done.stdout
    assert "backbone.extra.0.7.1.weight" in done.stdout
    assert "71 of 71 tensors used; layers: 30 loaded, 6 sliced, 0 fresh" in done.stdout
    model = keras.models.load_model(out)
    assert model.get_layer("predictions").labels == ("person", "platelet")
    fc7 = groups[0][14][0].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("fc7").kernel, fc7)
