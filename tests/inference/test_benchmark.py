import time

import pytest

from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.export.tflite.converter import export_tflite
from ssd_keras.inference.benchmark import Timing, fill_batch, time_stages
from ssd_keras.inference.stages import stages_of
from ssd_keras.model import ssd_vgg16
from tests.tiny import SSD64


def test_percentiles_and_order():
    """Functions are called in turn; 1 ms and 5 ms for a batch of two."""
    calls = []

    def sleep(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    stages = {"fast": lambda: sleep("fast", 0.001), "slow": lambda: sleep("slow", 0.005)}
    fast, slow = time_stages(stages, 2, repeats=3)
    assert calls == ["fast", "slow"] * 4  # one call of each is not timed
    assert 0.5 <= fast.median <= fast.p90 <= fast.p99
    assert slow.median >= 2.5
    assert "batch   2  slow " in str(slow)
    assert "500.0 images/s" in str(Timing(1, 2.0, 3.0, 4.0))
    with pytest.raises(ValueError, match=r"repeats \(=0\) must be at least 1"):
        time_stages(stages, 2, repeats=0)


def test_batches():
    assert fill_batch([b"a", b"b"], 3) == [b"a", b"b", b"a"]
    with pytest.raises(ValueError, match=r"images \(0\) and batch_size \(=1\) must be at least 1"):
        fill_batch([], 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = ssd_vgg16(SSD64, 5, width=1 / 32, labels=SHAPE_LABELS)
    model.save(folder / "m.keras")
    export_saved_model(model, folder / "saved_model")
    export_tflite(model, folder / "m.tflite", precision="float32")
    export_tflite(model, folder / "raw.tflite", precision="float32", kind="raw")
    return folder


@pytest.mark.parametrize(
    ("name", "openvino", "names"),
    [
        ("m.keras", False, {"base network", "forward", "decoding + suppression", "end to end"}),
        ("saved_model", False, {"forward + suppression", "end to end"}),
        ("m.tflite", False, {"forward + suppression", "end to end"}),
        ("raw.tflite", False, {"forward", "decoding + suppression", "end to end"}),
        ("raw.tflite", True, {"forward", "decoding + suppression", "end to end"}),
    ],
)
def test_stages_of_every_kind(files, name, openvino, names):
    if openvino:
        pytest.importorskip("openvino")
    images = [sample.image for sample in draw_shapes(2, seed=0, image_size=64)]
    stages = stages_of(files / name, images, openvino=openvino)
    assert set(stages) == names
    for function in stages.values():
        function()


def test_openvino_takes_raw_files_only(files):
    with pytest.raises(ValueError, match=r"must be a .tflite file of kind raw for OpenVINO"):
        stages_of(files / "m.tflite", [], openvino=True)
