"""The command `evaluate`. Other files test the metrics."""

import json

import pytest

from ssd_keras.config import SSD300_VOC
from ssd_keras.data.records import write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.model import ssd_vgg16
from tests.cli import in_process, loaded_command
from tests.processes import ssd_keras


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and records."""
    path = tmp_path_factory.mktemp("evaluate")
    ssd_vgg16(SSD300_VOC, 5, width=1 / 32, labels=SHAPE_LABELS).save(path / "m.keras")
    write_records(draw_shapes(3, 0, image_size=64), path / "records", SHAPE_LABELS, shards=1)
    return path


def run(folder, *options):
    return ssd_keras("evaluate", "--model=m.keras", "--records=records", *options, cwd=folder)


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


def test_coco_metrics(folder, capsys):
    usual = (f"--model={folder}/m.keras", f"--records={folder}/records", "--metric=coco")
    with loaded_command("evaluate") as evaluate:
        assert in_process(evaluate, *usual, f"--out={folder}/coco.json", "--batch_size=2") == 0
        report = json.loads((folder / "coco.json").read_text())
        assert report["metric"] == "coco"
        assert set(report["classes"]) == set(SHAPE_LABELS)
        assert len(report["statistics"]) == 12
        assert in_process(evaluate, *usual, "--iou_threshold=0.7") == 1
    assert "--iou_threshold (=0.7) needs --metric=voc" in capsys.readouterr().err


def test_a_plot_in_an_unknown_format_is_refused_first(tmp_path, capsys):
    """The error comes before the model is loaded: the file does not exist."""
    with loaded_command("evaluate") as evaluate:
        assert in_process(evaluate, "--model=x.keras", f"--records={tmp_path}", "--plot=x.foo") == 1
    assert "error: plot (=x.foo) must end in one of ." in capsys.readouterr().err
