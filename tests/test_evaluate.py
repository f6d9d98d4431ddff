"""The evaluate command; what it computes with is tested elsewhere."""

import json
import subprocess
import sys

from ssd_keras.config import SSD300_VOC
from ssd_keras.model import ssd_vgg16
from ssd_keras.records import write_records
from ssd_keras.shapes import SHAPE_LABELS, shapes


def test_table_json_and_plot(tmp_path):
    ssd_vgg16(SSD300_VOC, 5, width=1 / 32, labels=SHAPE_LABELS).save(tmp_path / "m.keras")
    write_records(shapes(3, 0, image_size=64), tmp_path / "records", SHAPE_LABELS, shards=1)
    command = [sys.executable, "-m", "ssd_keras.evaluate", "--model=m.keras", "--records=records"]
    command += ["--out=metrics.json", "--plot=curve.png", "--results=results.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(label in done.stdout for label in (*SHAPE_LABELS, "mean", "images/s"))
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["metric"] == "voc"
    assert report["num_images"] == 3
    assert report["images_per_second"] > 0
    assert list(report["classes"]) == list(SHAPE_LABELS)
    results = json.loads((tmp_path / "results.json").read_text())
    assert {item["category_id"] for item in results} <= {1, 2, 3, 4, 5}
    assert len(results[0]["bbox"]) == 4
    assert (tmp_path / "curve.png").is_file()
