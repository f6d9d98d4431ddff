"""Files that the package wrote before its modules moved into rooms (commit e88a86d).

`golden/before_rooms/last.keras` is the checkpoint of two steps of `train` (CaffeSGD, warm-up, one
boundary, MultiBoxLoss) on five images, with the tiny config and width 1/16. `expected.npz` contains
the predictions of the model at that commit for one image of noise. `detections.npz` contains the 50
best detections of the model at commit 61efd21, when default boxes still differed from the
original's in the last bits.
"""

import keras
import numpy as np

from ssd_keras.detections import DetectionDecoder
from ssd_keras.model import load_model
from tests.processes import ROOT, python
from tests.tiny import TINY

FOLDER = ROOT / "tests" / "golden" / "before_rooms"

LOAD = """
import sys, keras, numpy as np
import ssd_keras
model = keras.saving.load_model(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
np.save(sys.argv[2], model(images, training=False))
print(model.loss.name, int(model.optimizer.iterations), model.ssd_config.num_default_boxes)
"""


def test_an_earlier_file_loads_in_a_fresh_process_and_predicts_the_same(tmp_path):
    done = python(LOAD, FOLDER / "last.keras", tmp_path / "found.npy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["multibox_loss", "2", "380"]
    expected = np.load(FOLDER / "expected.npz")["predictions"]
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


def test_an_earlier_file_detects_the_same():
    model = load_model(FOLDER / "last.keras")
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    found = DetectionDecoder(model.ssd_config, max_detections=50)(model(images, training=False))
    expected = np.load(FOLDER / "detections.npz")
    np.testing.assert_array_equal(found["classes"][0], expected["classes"])
    np.testing.assert_allclose(found["boxes"][0], expected["boxes"], atol=1e-5)
    np.testing.assert_allclose(found["scores"][0], expected["scores"], atol=1e-5)


def test_an_earlier_checkpoint_goes_on_training():
    model = load_model(FOLDER / "last.keras", compile=True)
    assert model.ssd_config == TINY
    assert model.labels == ("red", "blue")
    schedule = keras.saving.deserialize_keras_object(model.optimizer.get_config()["learning_rate"])
    assert (schedule.warmup, tuple(schedule.boundaries)) == (1, (1,))
    before = model.get_layer("fc7").kernel.numpy()
    truth = np.array([[[0.1, 0.2, 0.6, 0.7, 1]]], np.float32)
    model.train_on_batch(np.zeros((1, 64, 64, 3), np.float32), truth)
    assert int(model.optimizer.iterations) == 3
    assert not np.array_equal(model.get_layer("fc7").kernel, before)
