"""Annotations that `detect_files` writes, read by the sources of this package."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ssd_keras.data.sources.coco import open_coco
from ssd_keras.data.sources.voc import open_voc
from ssd_keras.data.sources.yolo import open_yolo
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.files import JSON_NAME, detect_files

LABELS = ("cat", "dog & <co>")
SIZES = {"a.png": (80, 40), "b.jpg": (333, 517), "c.png": (1, 1)}
BOXES = np.float32([[0.1, 0.2, 0.55, 0.713], [0, 0.5, 1, 1], [0.3, 0.3, 0.300001, 0.9]])
SCORES = np.float32([0.9, 0.7, 0.5])
CLASSES = np.int32([2, 1, 1])


def run_pixels(images):
    return [{"boxes": BOXES, "scores": SCORES, "classes": CLASSES} for _ in images]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs")
    paths = [root / "images" / name for name in SIZES]
    paths[0].parent.mkdir()
    for path, size in zip(paths, SIZES.values(), strict=True):
        Image.new("RGB", size, (9, 99, 199)).save(path)
    detector = Detector(LABELS, None, None, run_pixels)
    formats = ("coco", "voc", "yolo", "crops")
    detect_files(detector, paths, root / "out", score_threshold=0.6, formats=formats)
    return root


def check(source, places, tolerance):
    """Checks that the boxes of all images are the detected ones, within a tolerance in pixels."""
    samples = list(source.samples)
    assert sorted(s.image_id for s in samples) == sorted(places)
    assert not source.notes.skipped
    for sample in samples:
        size = [sample.height, sample.width] * 2
        expected = {LABELS[k - 1]: box * size for box, k in zip(BOXES[:2], CLASSES, strict=False)}
        found = {
            source.labels[k - 1]: box * size
            for box, k in zip(sample.boxes, sample.labels, strict=True)
        }
        assert found.keys() == expected.keys()
        for label, box in expected.items():
            np.testing.assert_allclose(found[label], box, atol=tolerance)


def test_coco(folder, tmp_path):
    shutil.copytree(folder / "images", tmp_path / "images")
    shutil.copy(folder / "out" / "annotations.json", tmp_path)
    check(open_coco(tmp_path, "annotations.json:images"), ["1", "2", "3"], 0.002)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [a["score"] for a in content["annotations"][:2]] == pytest.approx([0.9, 0.7], abs=1e-6)


def test_voc(folder, tmp_path):
    shutil.copytree(folder / "images", tmp_path / "JPEGImages")
    shutil.copytree(folder / "out" / "Annotations", tmp_path / "Annotations")
    # Boxes have whole pixels, at least one. In the image of one pixel, the box is the whole image.
    check(open_voc(tmp_path, ""), ["a", "b", "c"], 0.91)
    (tmp_path / "JPEGImages" / "c.png").unlink()
    (tmp_path / "Annotations" / "c.xml").unlink()
    check(open_voc(tmp_path, ""), ["a", "b"], 0.501)


def test_yolo(folder, tmp_path):
    shutil.copytree(folder / "images", tmp_path / "images")
    shutil.copytree(folder / "out" / "labels", tmp_path / "labels")
    shutil.copy(folder / "out" / "classes.txt", tmp_path)
    check(open_yolo(tmp_path), ["a", "b", "c"], 0.001)


def test_crops(folder):
    crops = folder / "out" / "crops"
    assert sorted(str(p.relative_to(crops)) for p in crops.rglob("*.jpg")) == [
        *("cat/a-2.jpg", "cat/b-2.jpg", "cat/c-2.jpg"),
        *("dog & <co>/a-1.jpg", "dog & <co>/b-1.jpg", "dog & <co>/c-1.jpg"),
    ]
    with Image.open(crops / "cat" / "a-2.jpg") as crop:
        assert crop.size == (40, 40)  # the right half of 80 x 40


def test_only_the_chosen_formats_are_written(folder):
    names = {p.name for p in (folder / "out").iterdir()}
    assert names == {"annotations.json", "Annotations", "labels", "classes.txt", "crops"}
    assert JSON_NAME not in names


def test_an_unknown_format_is_refused(tmp_path):
    detector = Detector(LABELS, None, None, run_pixels)
    with pytest.raises(ValueError, match="format 'xml' must be one of pictures, jsonl, coco, voc"):
        detect_files(detector, [], tmp_path / "out", formats=("xml",))
    assert not (tmp_path / "out").exists()


def test_a_class_name_cannot_leave_the_folder_of_crops(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    detector = Detector(("x", "../../evil"), None, None, run_pixels)
    detect_files(detector, [tmp_path / "a.png"], tmp_path / "out" / "deep", formats=("crops",))
    assert (tmp_path / "out/deep/crops/_.._evil/a-1.jpg").is_file()
    assert not (tmp_path / "evil").exists()
