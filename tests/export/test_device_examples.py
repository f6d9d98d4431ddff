"""The examples for devices in export/serving, run on a photograph."""

import ctypes.util
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image

from ssd_keras.export.tflite.converter import export_tflite
from ssd_keras.export.tflite.interpreter import TFLiteDetector
from ssd_keras.images import warp
from tests.export.models import LABELS, spread_model
from tests.tiny import TINY

FOLDER = Path(__file__).parents[2] / "export" / "serving"
PHOTOGRAPH = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))  # 512 x 600
PNG_SIZE = 10 * TINY.image_size
# MediaPipe truncates the corner and the size of a box to whole pixels, so the opposite edges may
# differ by two pixels.
TWO_PIXELS = 2 / PNG_SIZE


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Returns a function that exports a model as a kind of TFLite file."""
    model = spread_model(TINY)
    folder = tmp_path_factory.mktemp("devices")

    def write(kind):
        path = folder / f"{kind}.tflite"
        export_tflite(model, path, kind=kind)
        return path

    return write


def run(name, *arguments):
    command = [sys.executable, FOLDER / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def printed(line):
    """Returns label, score and edges (ymin, xmin, ymax, xmax) from a line of output."""
    label, *values = re.findall(r": (\w+) (\S+) at (\S+) (\S+) (\S+) (\S+)", line)[0]
    score, *edges = map(float, values)
    return label, score, np.array(edges)


def assert_near(found, expected, score_tolerance, edge_tolerance):
    """Checks that each found (label, score, edges) is near a different expected detection.

    The order of detections may differ where their scores are nearly equal.
    """
    scores = [score for _, score, _ in found]
    np.testing.assert_allclose(scores, expected["scores"][: len(scores)], atol=score_tolerance)
    left = list(range(len(expected["scores"])))
    for label, score, edges in found:
        errors = {
            i: max(
                abs(expected["scores"][i] - score) / score_tolerance,
                np.abs(expected["boxes"][i] - edges).max() / edge_tolerance,
            )
            for i in left
            if LABELS[expected["classes"][i] - 1] == label
        }
        nearest = min(errors, key=errors.get, default=None)
        assert nearest is not None, label
        assert errors[nearest] <= 1, (label, score, edges)
        left.remove(nearest)


def test_litert_finds_what_the_package_does(export, enlarged):
    path, (image, png) = export("detections"), enlarged
    (expected,) = TFLiteDetector(path)([image])
    # Pillow and TensorFlow may decode pixels of the photograph to different levels.
    for picture, tolerance in ((png, 1e-3), (PHOTOGRAPH, 0.02)):
        done = run("detect_litert.py", "--model", path, "--score", 0.05, picture)
        assert done.returncode == 0, done.stderr
        found = [printed(line) for line in done.stdout.splitlines()]
        assert len(found) == int((expected["scores"] >= 0.05).sum()) > 0
        assert_near(found[:30], expected, tolerance, tolerance)


def test_litert_example_reports_errors(export, tmp_path):
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


@pytest.fixture(scope="module")
def mediapipe():
    """Imports MediaPipe, a development dependency, which also needs system libraries."""
    for library in ("EGL", "GLESv2"):
        assert ctypes.util.find_library(library), (
            f"mediapipe needs lib{library}: apt-get install libegl1 libgles2"
        )
    return importlib.import_module("mediapipe")


@pytest.fixture(scope="module")
def enlarged(tmp_path_factory):
    """Returns the photograph in the network's size, and a PNG with 10 x 10 copies of each pixel.

    Any bilinear resizing of the PNG to the network's size gives the first array, so MediaPipe's
    method of resizing has no effect. Boxes rounded to pixels of the PNG are still precise.
    """
    image = np.rint(warp(PHOTOGRAPH.read_bytes(), TINY.image_size).numpy()).astype(np.uint8)
    path = tmp_path_factory.mktemp("enlarged") / "photograph.png"
    Image.fromarray(image.repeat(10, axis=0).repeat(10, axis=1)).save(path)
    return image, path


def test_mediapipe_finds_what_the_package_does(mediapipe, export, enlarged):
    from mediapipe.tasks.python import vision

    path, (image, png) = export("mediapipe"), enlarged
    options = vision.ObjectDetectorOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(path)), max_results=5
    )
    with vision.ObjectDetector.create_from_options(options) as detector:
        found = detector.detect(mediapipe.Image.create_from_file(str(png))).detections
    (expected,) = TFLiteDetector(path)([image])
    assert len(found) == 5
    boxes = [detection.bounding_box for detection in found]
    best = [detection.categories[0] for detection in found]
    edges = [(b.origin_y, b.origin_x, b.origin_y + b.height, b.origin_x + b.width) for b in boxes]
    edges = np.array(edges) / PNG_SIZE
    labels, scores = [c.category_name for c in best], [c.score for c in best]
    assert_near([*zip(labels, scores, edges, strict=True)], expected, 1e-3, TWO_PIXELS)


def test_mediapipe_example_prints_what_the_package_detects(mediapipe, export, enlarged):
    path, (image, png) = export("mediapipe"), enlarged
    (expected,) = TFLiteDetector(path)([image])
    threshold = expected["scores"][19:21].mean()  # between two scores: 20 detections are above it
    done = run("detect_mediapipe.py", "--model", path, "--score", threshold, png)
    assert done.returncode == 0, done.stderr
    found = [printed(line) for line in done.stdout.splitlines()]
    assert len(found) == 20
    found = [(label, score, edges / PNG_SIZE) for label, score, edges in found]
    assert_near(found, expected, 1e-3, TWO_PIXELS)
