import contextlib
import io
import json
import math

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd_keras.data.records import Sample
from ssd_keras.evaluation.coco import COCO_STATISTICS, coco_average_precision, coco_results

LABELS = ("cat", "dog", "cow")
CATEGORY_IDS = (17, 90, 3)  # with gaps and not sorted


def normalized(boxes, size):
    """Converts xywh in pixels to normalized yxyx."""
    x, y, w, h = np.reshape(np.asarray(boxes, float), (-1, 4)).T
    return np.stack([y / size[0], x / size[1], (y + h) / size[0], (x + w) / size[1]], -1)


def random_case(seed):
    """Returns COCO annotations and results, and the same as samples and detections."""
    rng = np.random.default_rng(seed)
    images, annotations, results, samples, found = [], [], [], [], []
    for image_id in rng.permutation(np.arange(100, 130)).tolist():
        size = tuple(rng.integers(200, 640, 2).tolist())
        images.append(
            {
                "id": image_id,
                "file_name": f"{image_id:012d}.jpg",
                "height": size[0],
                "width": size[1],
            }
        )
        n = rng.integers(0, 8)
        boxes = np.concatenate([rng.integers(0, 100, (n, 2)), rng.integers(5, 120, (n, 2))], 1)
        ids, crowd = rng.choice(CATEGORY_IDS, n), rng.random(n) < 0.2
        for box, k, is_crowd in zip(boxes.tolist(), ids.tolist(), crowd.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": k,
                    "bbox": box,
                    "area": box[2] * box[3] * 0.6,
                    "iscrowd": int(is_crowd),
                }
            )
        guesses = np.concatenate([boxes + rng.integers(0, 4, (n, 4)), boxes])
        guess_ids = np.concatenate([ids, rng.choice(CATEGORY_IDS, n)])
        scores = rng.integers(1, 20, 2 * n) / 20
        results += [
            {"image_id": image_id, "category_id": int(k), "bbox": box, "score": float(s)}
            for box, k, s in zip(guesses.tolist(), guess_ids, scores, strict=True)
        ]
        name = str(image_id) if image_id % 2 else f"{image_id:012d}"
        samples.append(
            Sample(b"", name, *size, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
        )
        found.append(
            {
                "boxes": normalized(guesses, size).astype(np.float32),
                "scores": scores,
                "classes": np.array([CATEGORY_IDS.index(k) + 1 for k in guess_ids], int),
            }
        )
    categories = [{"id": k, "name": n} for k, n in zip(CATEGORY_IDS, LABELS, strict=True)]
    dataset = {"images": images, "annotations": annotations, "categories": categories}
    return dataset, results, samples, found


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools_on_the_files(seed, tmp_path, capsys):
    dataset, results, samples, found = random_case(seed)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    capsys.readouterr()

    result = coco_average_precision(
        found, samples, LABELS, annotations=path, category_ids=CATEGORY_IDS
    )

    assert tuple(result.statistics) == COCO_STATISTICS
    expected = np.where(evaluation.stats < 0, math.nan, evaluation.stats)
    np.testing.assert_allclose(list(result.statistics.values()), expected, atol=1e-9)
    cow = evaluation.eval["precision"][:, :, 0, 0, 2]  # category 3 comes first
    assert result.classes["cow"] == pytest.approx(cow.mean(), abs=1e-9)
    assert result.statistics["AP"] == pytest.approx(np.mean(list(result.classes.values())))
    assert capsys.readouterr().out == ""


def test_results_have_the_coco_format(tmp_path):
    dataset, results, samples, found = random_case(0)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dataset))
    for written in (
        coco_results(found, samples, CATEGORY_IDS),  # the names of the samples are ids
        coco_results(found, samples, CATEGORY_IDS, path),
    ):
        assert json.loads(json.dumps(written)) == written
        assert len(written) == len(results)
        for ours, theirs in zip(written, results, strict=True):
            assert ours == {**theirs, "bbox": pytest.approx(theirs["bbox"], abs=2e-3)}
    with contextlib.redirect_stdout(io.StringIO()):
        assert len(COCO(path).loadRes(written).anns) == len(results)


def test_ground_truth_of_the_samples():
    boxes = normalized([[10, 10, 40, 40], [60, 20, 20, 30], [5, 70, 10, 10]], (100, 120))
    truth = Sample(
        *(b"", "a", 100, 120, boxes, np.array([1, 2, 1]), np.array([False, False, True]))
    )
    found = {"boxes": boxes[:1], "scores": np.ones(1), "classes": np.array([1])}
    result = coco_average_precision([found], [truth], LABELS)
    expected = {"cat": 1.0, "dog": 0.0, "cow": math.nan}
    assert result.classes == pytest.approx(expected, nan_ok=True)
    assert result.statistics["AP"] == pytest.approx(0.5)
    assert math.isnan(result.statistics["APl"])
    assert result.to_dict()["statistics"]["APl"] is None


def test_no_detections_and_no_objects():
    nothing = {"boxes": np.zeros((0, 4)), "scores": np.zeros(0), "classes": np.zeros(0, int)}
    truth = Sample(b"", "a", 9, 9, np.array([[0, 0, 1, 1.0]]), np.array([1]), np.array([False]))
    assert coco_average_precision([nothing], [truth], LABELS).statistics["AP"] == 0.0
    empty = Sample(b"", "a", 9, 9, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0, bool))
    assert math.isnan(coco_average_precision([nothing], [empty], LABELS).statistics["AP"])


def test_invalid_inputs_are_refused(tmp_path):
    dataset, _, samples, found = random_case(0)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({**dataset, "images": dataset["images"][1:]}))
    with pytest.raises(
        ValueError, match=r"category_ids \(=None\) must give the category id in .*json"
    ):
        coco_average_precision(found, samples, LABELS, annotations=path)
    with pytest.raises(ValueError, match=f"{samples[0].image_id!r} is not in .*instances.json"):
        coco_average_precision(found, samples, LABELS, annotations=path, category_ids=CATEGORY_IDS)
    with pytest.raises(ValueError, match="same images in the same order"):
        coco_average_precision(found[1:], samples, LABELS)


def test_an_image_may_be_named_by_the_id_of_another(tmp_path):
    """An annotation may also have id 0, which pycocotools treats as "no object"."""
    names = ("2.jpg", "3.jpg", "1.jpg")  # of ids 1, 2 and 3
    boxes = [[10.0 * i, 10, 20, 20 + 10 * i] for i in range(3)]
    size = {"height": 100, "width": 100}
    dataset = {
        "images": [{"id": i + 1, "file_name": n, **size} for i, n in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i + 1, "category_id": 1, "bbox": b}  # no area, no iscrowd
            for i, b in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dataset))
    samples, found = [], []
    for i, (x, y, w, h) in enumerate(boxes):
        box = np.array([[y, x, y + h, x + w]]) / 100
        ones = np.ones(1, int)
        samples.append(Sample(b"", str(i + 1), 100, 100, box, ones, np.zeros(1, bool)))
        found.append({"boxes": box, "scores": np.ones(1), "classes": ones})
    result = coco_average_precision(found, samples, ["cat"], annotations=path, category_ids=[1])
    assert result.statistics["AP"] == pytest.approx(1)
