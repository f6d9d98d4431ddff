import math

import numpy as np
import pytest

from ssd_keras.data.records import Sample
from ssd_keras.evaluation.voc import voc_average_precision
from tests import golden_inputs as golden


def sample(boxes, labels=None, difficult=None, *, size=(100, 100), name="picture"):
    """Creates ground truth from yxyx boxes in pixels."""
    boxes = np.reshape(np.asarray(boxes, float), (-1, 4)) / (size * 2)
    labels = np.ones(len(boxes), int) if labels is None else np.asarray(labels, int)
    difficult = np.zeros(len(boxes), bool) if difficult is None else np.asarray(difficult, bool)
    return Sample(b"", name, *size, boxes.astype(np.float32), labels, difficult)


def detections(boxes, scores, classes=None, *, size=(100, 100)):
    boxes = np.reshape(np.asarray(boxes, float), (-1, 4)) / (size * 2)
    classes = np.ones(len(boxes), int) if classes is None else np.asarray(classes, int)
    return {"boxes": boxes.astype(np.float32), "scores": np.asarray(scores), "classes": classes}


def devkit(found, truth, class_id, threshold):
    """Restates `VOCevaldet.m` with its loops; returns 11-point AP and area AP."""
    rows = [
        (score, i, box)
        for i, d in enumerate(found)
        for box, score, k in zip(d["boxes"], d["scores"], d["classes"], strict=True)
        if k == class_id
    ]
    rows.sort(key=lambda row: -row[0])  # stable
    taken = [[False] * len(t.labels) for t in truth]
    positives = sum(int(((t.labels == class_id) & ~t.difficult).sum()) for t in truth)
    tp, fp = [], []
    for _, i, box in rows:
        best, best_j = -math.inf, None
        scale = [truth[i].height, truth[i].width] * 2
        b = np.round(np.float64(box) * scale, 3)
        for j, other in enumerate(truth[i].boxes):
            if truth[i].labels[j] != class_id:
                continue
            g = np.round(np.float64(other) * scale, 3)
            h, w = min(b[2], g[2]) - max(b[0], g[0]) + 1, min(b[3], g[3]) - max(b[1], g[1]) + 1
            if h > 0 and w > 0:
                union = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
                union += (g[2] - g[0] + 1) * (g[3] - g[1] + 1) - h * w
                if h * w / union > best:
                    best, best_j = h * w / union, j
        if best >= threshold:
            if truth[i].difficult[best_j]:
                continue
            tp.append(not taken[i][best_j])
            taken[i][best_j] = True
        else:
            tp.append(False)
        fp.append(not tp[-1])
    recall = np.cumsum(tp) / positives
    precision = np.cumsum(tp) / (np.cumsum(tp) + np.cumsum(fp))
    eleven = [max(precision[recall >= t], default=0) for t in np.linspace(0, 1, 11)]
    r, p = [0, *recall, 1], [0, *precision, 0]
    for k in range(len(p) - 2, -1, -1):
        p[k] = max(p[k], p[k + 1])
    return np.mean(eleven), sum((r[k] - r[k - 1]) * p[k] for k in range(1, len(r)))


def test_by_hand():
    truth = [sample([[10, 10, 29, 29], [50, 50, 69, 69]]), sample([[0, 0, 19, 19]])]
    found = [
        detections([[10, 10, 29, 29], [80, 80, 99, 99]], [0.9, 0.8]),
        detections([[0, 0, 19, 19]], [0.7]),
    ]
    (result,) = voc_average_precision(found, truth, ["cat"]).classes

    # true, false and true positive, of three objects
    np.testing.assert_allclose(result.recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(result.precision, [1, 1 / 2, 2 / 3])
    assert result.ap_11_point == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)  # 0..0.3, 0.4..0.6
    assert result.ap_area == pytest.approx((1 + 2 / 3) / 3)
    assert (result.num_objects, result.num_detections) == (3, 3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_equals_the_devkits_loops(seed, threshold):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(12):
        size = tuple(rng.integers(20, 200, 2).tolist())
        n, extra = rng.integers(0, 6), rng.integers(0, 4)
        corner = rng.integers(0, 10, (n, 2))
        boxes = np.concatenate([corner, corner + rng.integers(3, 10, (n, 2))], 1)
        labels = rng.integers(1, 4, n)
        truth.append(sample(boxes, labels, rng.random(n) < 0.2, size=size))
        guesses = np.concatenate([boxes, boxes + rng.integers(-2, 3, (n, 4))])
        corner = rng.integers(0, 15, (extra, 2))
        guesses = np.concatenate([guesses, np.concatenate([corner, corner + 4], 1)])
        scores = rng.integers(1, 6, len(guesses)) / 5  # many ties
        classes = np.concatenate([labels, labels, rng.integers(1, 4, extra)])
        found.append(detections(guesses, scores, classes, size=size))

    result = voc_average_precision(found, truth, list("abc"), iou_threshold=threshold)

    for class_id, c in enumerate(result.classes, start=1):
        eleven, area = devkit(found, truth, class_id, threshold)
        assert c.ap_11_point == pytest.approx(eleven, abs=1e-12)
        assert c.ap_area == pytest.approx(area, abs=1e-12)


def test_difficult_objects_are_neither_found_nor_missed():
    truth = [sample([[0, 0, 9, 9], [50, 50, 59, 59]], difficult=[True, False])]
    boxes = [[0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 59, 59]]
    (c,) = voc_average_precision([detections(boxes, [0.9, 0.8, 0.7])], truth, ["cat"]).classes
    assert (c.num_objects, c.num_detections) == (1, 3)
    assert c.precision.tolist() == [1.0]
    assert c.ap_area == 1.0


def test_a_second_detection_of_an_object_is_false():
    boxes = [[0, 0, 9, 9], [0, 0, 9, 9]]
    (c,) = voc_average_precision(
        [detections(boxes, [0.8, 0.9])], [sample(boxes[0])], ["cat"]
    ).classes
    assert c.precision.tolist() == [1.0, 0.5]


def test_far_edges_belong_to_the_pixel_box():
    # 10 x 10 and 10 x 20 pixels: the IoU is exactly 0.5; without "+1" it would be 81 / 171.
    truth, found = [sample([0, 0, 9, 9])], [detections([0, 0, 9, 19], [0.5])]
    assert voc_average_precision(found, truth, ["cat"]).mean_ap_area == 1.0
    found = [detections([0, 0, 9, 20], [0.5])]
    assert voc_average_precision(found, truth, ["cat"]).mean_ap_area == 0.0


def test_division_by_the_size_does_not_move_an_iou_off_the_threshold():
    for side in range(30, 60):
        size = (side, 2 * side + 1)
        truth = [sample([1, 2, 10, 11], size=size)]
        found = [detections([1, 2, 10, 21], [0.5], size=size)]
        assert voc_average_precision(found, truth, ["cat"]).mean_ap_area == 1.0


def test_pixels_are_those_of_each_image():
    # The same normalized boxes: 2 x 2 and 2 x 3 pixels, or 1001 x 1001 and 1001 x 2006.
    for size, ap in (((10, 10), 1.0), ((10000, 10000), 0.0)):
        truth = Sample(b"", "a", *size, np.array([[0, 0, 0.1, 0.1]]), np.ones(1, int), np.zeros(1))
        found = {
            "boxes": np.array([[0, 0, 0.1, 0.2005]]),
            "scores": [0.5],
            "classes": np.ones(1, int),
        }
        assert voc_average_precision([found], [truth], ["cat"]).mean_ap_area == ap


def test_equal_scores_keep_their_order():
    truth = [sample([0, 0, 9, 9]), sample([0, 0, 9, 9])]
    hit, miss = detections([0, 0, 9, 9], [0.5]), detections([60, 60, 90, 90], [0.5])
    assert voc_average_precision([hit, miss], truth, ["cat"]).mean_ap_area == 0.5
    assert voc_average_precision([miss, hit], truth, ["cat"]).mean_ap_area == 0.25


def test_classes_without_objects_are_not_in_the_mean():
    truth = [sample([[0, 0, 9, 9], [20, 20, 30, 30]], [1, 3], [False, True])]
    found = [detections([[0, 0, 9, 9], [50, 50, 60, 60]], [0.9, 0.8], [1, 2])]
    result = voc_average_precision(found, truth, ["cat", "dog", "cow"])
    assert result.without_objects == ("dog", "cow")
    assert result.mean_ap_11_point == result.mean_ap_area == 1.0
    assert math.isnan(result.classes[1].ap_area)
    assert result.to_dict()["classes"]["dog"]["ap_area"] is None
    assert str(result).endswith("without objects: dog, cow")


def test_no_detections_and_no_objects():
    nothing = detections([], [])
    assert voc_average_precision([nothing], [sample([0, 0, 9, 9])], ["cat"]).mean_ap_area == 0.0
    for truth in ([sample([])], []):
        result = voc_average_precision([nothing] * len(truth), truth, ["cat"])
        assert math.isnan(result.mean_ap_11_point)


@pytest.mark.parametrize(
    ("found", "iou", "message"),
    [
        ([], 0.5, "detections has 0 images and ground_truth 1"),
        ([detections([0, 0, 1, 1], [math.nan])], 0.5, "'picture' has a detection whose score is"),
        ([detections([0, 0, 1, 1], [1], [2])], 0.5, "class ids must be from 1 to 1"),
        ([detections([0, 0, 1, 1], [1], [-1])], 0.5, "'picture' has a detection of class -1"),
        ([detections([], [])], 0.0, r"iou_threshold \(=0.0\) must be above 0"),
    ],
)
def test_invalid_inputs_are_refused(found, iou, message):
    with pytest.raises(ValueError, match=message):
        voc_average_precision(found, [sample([0, 0, 9, 9])], ["cat"], iou_threshold=iou)


def test_equals_the_original():
    """DetectionEvaluate and ComputeAP: 11-point, and MaxIntegral, which is the area.

    The original compares float32 recalls with the levels: 9 of 10 objects do not reach 0.9 there.
    """
    real, found = golden.evaluated()
    truth = [Sample(b"", str(i), 400, 500, *objects) for i, objects in enumerate(real)]
    result = voc_average_precision(found, truth, ["a", "b", "c"])
    ap = golden.answers("evaluation")["ap"]
    eleven = []
    for c in result.classes:
        recall = np.float32(c.recall).astype(float)
        best = [c.precision[recall >= level / 10].max(initial=0) for level in range(11)]
        eleven.append(np.mean(best))
    np.testing.assert_allclose(eleven, ap[:, 0], rtol=1e-5)
    np.testing.assert_allclose([c.ap_area for c in result.classes], ap[:, 1], rtol=1e-5)
