"""The conversion to ONNX that export/README.md describes."""

import subprocess
import sys

import numpy as np
import pytest

from ssd_keras.export.tflite.converter import export_tflite
from ssd_keras.export.tflite.interpreter import TFLiteDetector
from tests.export.models import spread_model
from tests.tiny import TINY


def test_raw_tflite_becomes_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", exc_type=ImportError)
    pytest.importorskip("tf2onnx", exc_type=ImportError)
    export_tflite(spread_model(TINY), tmp_path / "raw.tflite", kind="raw")
    command = [sys.executable, "-m", "tf2onnx.convert", "--opset", "17"]
    command += ["--tflite", "raw.tflite", "--output", "raw.onnx"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    session = onnxruntime.InferenceSession(tmp_path / "raw.onnx")
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    found = session.run(None, {session.get_inputs()[0].name: image})
    expected = TFLiteDetector(tmp_path / "raw.tflite").run(image[0])
    for name, last in (("boxes", 4), ("scores", 3)):
        (values,) = (v for v in found if v.shape == (1, TINY.num_default_boxes, last))
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
