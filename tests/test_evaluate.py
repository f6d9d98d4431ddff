"""The evaluate command; what it computes with is tested elsewhere."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from ssd_keras.config import SSD300_VOC
from ssd_keras.model import ssd_vgg16
from ssd_keras.records import write_records
from ssd_keras.shapes import SHAPE_LABELS, shapes
from tests.data_sets import loaded_script

evaluate_module = importlib.util.find_spec("ssd_keras.evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a model and records."""
    path = tmp_path_factory.mktemp("evaluate")
    ssd_vgg16(SSD300_VOC, 5, width=1 / 32, labels=SHAPE_LABELS).save(path / "m.keras")
    write_records(shapes(3, 0, image_size=64), path / "records", SHAPE_LABELS, shards=1)
    return path


def run(folder, *options):
    command = [sys.executable, "-m", "ssd_keras.evaluate", "--model=m.keras", "--records=records"]
    return subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, check=False
    )


def test_table_json_and_plot(folder):
    done = run(folder, "--out=metrics.json", "--plot=curve.png", "--results=results.json")
    assert done.returncode == 0, done.stderr
    assert all(label in done.stdout for label in (*SHAPE_LABELS, "mean", "images/s"))
    report = json.loads((folder / "metrics.json").read_text())
    assert report["metric"] == "voc"
    assert report["num_images"] == 3
    assert report["images_per_second"] > 0
    assert list(report["classes"]) == list(SHAPE_LABELS)
    results = json.loads((folder / "results.json").read_text())
    assert {item["category_id"] for item in results} <= {1, 2, 3, 4, 5}
    assert len(results[0]["bbox"]) == 4
    assert (folder / "curve.png").is_file()


def test_cocos_numbers(folder, capsys):
    path = pathlib.Path(evaluate_module.origin)
    with loaded_script(path) as evaluate:
        flags.FLAGS(["evaluate", f"--model={folder}/m.keras", f"--records={folder}/records"])
        with flagsaver.flagsaver(metric="coco", out=f"{folder}/coco.json", batch_size=2):
            assert not evaluate.main(["evaluate"])
        report = json.loads((folder / "coco.json").read_text())
        assert report["metric"] == "coco"
        assert set(report["classes"]) == set(SHAPE_LABELS)
        assert len(report["statistics"]) == 12
        flags.FLAGS(["evaluate", "--metric=coco", "--iou_threshold=0.7"])
        assert evaluate.main(["evaluate"]) == 1
    assert "--iou_threshold (=0.7) needs --metric voc" in capsys.readouterr().err
