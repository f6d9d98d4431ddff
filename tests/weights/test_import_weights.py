import json

import keras
import numpy as np

from ssd_keras.config import SSD300_COCO
from tests.peer_files import narrow, random_layers, write_file
from tests.processes import python

# The command builds a full-width network; this script uses a narrow one to be fast. It runs as a
# separate process, because absl cannot define the flags of several commands in one process.
RUN = """
import functools, json, sys
from absl import logging
from ssd_keras.commands import import_weights as command
from tests.cli import in_process
command.ssd_vgg16 = functools.partial(command.ssd_vgg16, width=1 / 8)
logging.use_absl_handler()
for arguments in json.loads(sys.argv[1]):
    print("exit", in_process(command, "--verbosity=0", *arguments), flush=True)
"""


def run(*commands):
    """Runs the command once for each list of flags; returns all of stdout and stderr."""
    done = python(RUN, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_command_writes_a_model_and_prints_the_report(tmp_path):
    groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 91)
    path = write_file(tmp_path, "torchvision", 300, "COCO", groups, scale)
    classes, out = tmp_path / "classes.txt", tmp_path / "out" / "model.keras"
    classes.write_text("person\nplatelet\n")
    other = tmp_path / "other"
    other.mkdir()
    other_groups, scale = random_layers(narrow(SSD300_COCO, 1), 300, 3)
    theirs = write_file(other, "lufficc", 300, "COCO", other_groups, scale)
    (other / "theirs.txt").write_text("platelet\ncell\n")
    usual = [f"--labels={classes}", "--config=SSD300_COCO"]

    stdout, stderr = run(
        [f"--weights={path}", f"--out={out}", *usual],
        [f"--weights={path}", f"--out={out}", *usual],
        [
            *(f"--weights={theirs}", f"--out={other / 'model.keras'}", *usual),
            *(f"--weights_labels={other / 'theirs.txt'}", "--weights_config=SSD300_COCO"),
        ],
    )
    first, again, custom = stdout.split("exit")[:3]
    assert "project: torchvision, detected from the names of its tensors" in first
    assert "backbone.extra.0.7.1.weight" in first
    assert "71 of 71 tensors used; layers: 30 loaded, 6 sliced, 0 fresh" in first
    assert first.count("used: conv1_1/kernel") == 1
    assert "71 of 71 tensors used" in stderr
    assert "used: conv1_1/kernel" not in stderr  # the table is only printed
    model = keras.models.load_model(out)
    assert model.labels == ("person", "platelet")
    fc7 = groups[0][14][0].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.get_layer("fc7").kernel, fc7)

    assert again.split()[0] == "0"  # the exit code of the first run
    assert "model.keras) already exists" in stderr

    assert "tiling: weights_config, as given" in custom
    model = keras.models.load_model(other / "model.keras")
    bias = model.get_layer("conv11_2_logits").bias.numpy().reshape(4, 3)
    theirs = other_groups[3][5][1].reshape(4, 3)
    np.testing.assert_array_equal(bias[:, [0, 2]], theirs[:, [0, 1]])
