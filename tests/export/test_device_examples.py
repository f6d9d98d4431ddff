"""The examples of export/serving for devices, on a real photograph."""

import ctypes.util
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image

from ssd_keras.export.tflite import converter as tflite
from ssd_keras.export.tflite.interpreter import TFLiteDetector
from ssd_keras.images import warp
from ssd_keras.model import ssd_vgg16
from tests.tiny import TINY

FOLDER = Path(__file__).parents[2] / "export" / "serving"
PHOTOGRAPH = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))  # 512 x 600
LABELS = ("disk", "ring", "square")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = ssd_vgg16(TINY, len(LABELS), width=1 / 16, labels=LABELS)
    folder = tmp_path_factory.mktemp("devices")

    def write(kind):
        path = folder / f"{kind}.tflite"
        tflite.export_tflite(model, path, kind=kind)
        return path

    return write


def run(name, *arguments):
    command = [sys.executable, FOLDER / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def numbers(line):
    """What stands behind the file's name in a line of an example: label, score, four edges."""
    label, *values = re.findall(r": (\w+) (\S+) at (\S+) (\S+) (\S+) (\S+)", line)[0]
    return label, np.array(values, float)


def test_litert_finds_what_the_package_does(export):
    path = export("detections")
    done = run("detect_litert.py", "--model", path, "--score", 0.05, PHOTOGRAPH)
    assert done.returncode == 0, done.stderr
    image = np.rint(warp(PHOTOGRAPH.read_bytes(), TINY.image_size).numpy())
    (expected,) = TFLiteDetector(path)([image])
    lines = done.stdout.splitlines()
    assert len(lines) == int((expected["scores"] >= 0.05).sum()) > 0
    best = dict(
        zip(("scores", "boxes"), (expected["scores"][0], expected["boxes"][0]), strict=True)
    )
    label, values = numbers(lines[0])
    assert label == LABELS[expected["classes"][0] - 1]
    # Pillow and TensorFlow round the resized picture to whole grey levels differently at most.
    np.testing.assert_allclose(values, [best["scores"], *best["boxes"]], atol=2e-3)


def test_litert_says_what_is_wrong(export, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(PHOTOGRAPH.read_bytes()[:30000])
    (tmp_path / "no.tflite").write_bytes(b"no model")
    for model, picture, message in (
        (export("detections"), tmp_path / "cut.jpg", "cut.jpg: image file is truncated"),
        (export("raw"), PHOTOGRAPH, "raw.tflite is of another kind: export it with --kind"),
        (tmp_path / "no.tflite", PHOTOGRAPH, "no.tflite has no labels"),
        (tmp_path / "none.tflite", PHOTOGRAPH, "none.tflite"),
    ):
        done = run("detect_litert.py", "--model", model, picture)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def mediapipe():
    for library in ("EGL", "GLESv2"):
        if ctypes.util.find_library(library) is None:
            pytest.skip(f"mediapipe needs lib{library} (Debian: libegl1, libgles2)")
    return pytest.importorskip("mediapipe", exc_type=ImportError)


def test_mediapipe_finds_what_the_package_does(mediapipe, export, tmp_path):
    """A photograph of the network's own size, so that MediaPipe's resizing plays no part."""
    from mediapipe.tasks.python import vision

    path, size = export("mediapipe"), TINY.image_size
    image = np.rint(warp(PHOTOGRAPH.read_bytes(), size).numpy()).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "small.png")
    options = vision.ObjectDetectorOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(path)), max_results=5
    )
    with vision.ObjectDetector.create_from_options(options) as detector:
        picture = mediapipe.Image.create_from_file(str(tmp_path / "small.png"))
        found = detector.detect(picture).detections
    (expected,) = TFLiteDetector(path)([image])
    assert len(found) == 5
    for i, detection in enumerate(found):
        best, box = detection.categories[0], detection.bounding_box
        assert best.category_name == LABELS[int(expected["classes"][i]) - 1]
        assert best.score == pytest.approx(expected["scores"][i], abs=1e-3)
        edges = [box.origin_y, box.origin_x, box.origin_y + box.height, box.origin_x + box.width]
        # MediaPipe cuts corner and extent to whole pixels, so a far edge may lose up to two.
        np.testing.assert_allclose(edges, expected["boxes"][i] * size, atol=2)


def test_the_mediapipe_example_runs(mediapipe, export):
    path = export("mediapipe")
    done = run("detect_mediapipe.py", "--model", path, "--score", 0.05, PHOTOGRAPH)
    assert done.returncode == 0, done.stderr
    label, (score, *edges) = numbers(done.stdout.splitlines()[0])
    assert label in LABELS
    assert 0.05 <= score <= 1
    assert min(edges) >= 0
    assert max(edges) <= 600
