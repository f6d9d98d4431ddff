"""Result files of the evaluation servers, read as the servers read them."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_keras.evaluation.coco import coco_average_precision
from ssd_keras.evaluation.results import with_coco_results, with_voc_results
from ssd_keras.evaluation.voc import voc_average_precision
from tests.evaluation.test_voc import detections, devkit, sample

TRUTHS = [
    sample([[10, 20, 30, 60]], [1], name="000001"),
    sample([[0, 0, 50, 50], [60, 60, 90, 90]], [2, 1], name="000002"),
]
FOUND = [
    detections([[10, 20, 30, 61], [0, 0, 5, 5]], [0.9, 0.25], [1, 2]),
    detections([[0, 0, 50, 49], [60, 60, 90, 90], [60, 0, 90, 20]], [0.8, 0.7, 0.75], [2, 1, 1]),
]
LABELS = ("cat", "dog")


def test_voc_lines(tmp_path):
    pairs = list(with_voc_results(zip(FOUND, TRUTHS, strict=True), tmp_path, LABELS))
    assert pairs[1][0] is FOUND[1]
    assert (tmp_path / "comp4_det_test_dog.txt").read_text() == (
        "000001 0.250000 0.000 0.000 5.000 5.000\n000002 0.800000 0.000 0.000 49.000 50.000\n"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "comp4_det_test_cat.txt",
        "comp4_det_test_dog.txt",
    ]


def test_voc_files_give_the_same_ap(tmp_path):
    """VOCevaldet.m reads `textread(path, '%s %f %f %f %f %f')`."""
    list(with_voc_results(zip(FOUND, TRUTHS, strict=True), tmp_path, LABELS))
    read = {truth.image_id: ([], [], []) for truth in TRUTHS}
    for class_id, label in enumerate(LABELS, start=1):
        for line in (tmp_path / f"comp4_det_test_{label}.txt").read_text().splitlines():
            image_id, score, xmin, ymin, xmax, ymax = line.split(" ")
            boxes, scores, classes = read[image_id]
            boxes.append([float(ymin), float(xmin), float(ymax), float(xmax)])
            scores.append(float(score))
            classes.append(class_id)
    found = [detections(*read[truth.image_id]) for truth in TRUTHS]
    result = voc_average_precision(FOUND, TRUTHS, LABELS)
    for class_id, c in enumerate(result.classes, start=1):
        expected = devkit(found, TRUTHS, class_id, 0.5)
        assert (c.ap_11_point, c.ap_area) == pytest.approx(expected)


def test_coco_file_is_read_by_pycocotools(tmp_path):
    path = tmp_path / "found.json"
    list(with_coco_results(zip(FOUND, TRUTHS, strict=True), path, (7, 90)))
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 7}, {"id": 90}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for n, (i, c, b) in enumerate(
                [(1, 7, [20, 10, 40, 20]), (2, 90, [0, 0, 50, 50]), (2, 7, [60, 60, 30, 30])], 1
            )
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(str(path)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = coco_average_precision(FOUND, TRUTHS, LABELS).statistics
    np.testing.assert_allclose(evaluation.stats[0], ours["AP"])
    assert json.loads(path.read_text())[0] == {
        "image_id": 1,
        "category_id": 7,
        "bbox": [20.0, 10.0, 41.0, 20.0],
        "score": pytest.approx(0.9),
    }


def test_no_detections_at_all(tmp_path):
    nothing = [(detections([], []), TRUTHS[0])]
    list(
        with_voc_results(with_coco_results(nothing, tmp_path / "f.json", (1, 2)), tmp_path, LABELS)
    )
    assert json.loads((tmp_path / "f.json").read_text()) == []
    assert (tmp_path / "comp4_det_test_cat.txt").read_text() == ""


def test_names_that_the_format_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match=r"class '\.\./cat' cannot be part of a file name"):
        list(with_voc_results([], tmp_path, ("../cat",)))
    pairs = [(FOUND[0], sample([], name="two words"))]
    with pytest.raises(ValueError, match="image id 'two words' must be one word"):
        list(with_voc_results(pairs, tmp_path, LABELS))
    assert list(tmp_path.iterdir()) == []  # a failed run leaves no file
