"""The diagnosis of section 3.1 on cases that can be checked by hand."""

import numpy as np
import pytest

from ssd_keras.class_names import VOC_CLASSES
from ssd_keras.evaluation.errors import (
    KINDS,
    confusion_matrix,
    error_profile,
    similar_classes,
)
from ssd_keras.evaluation.matches import match_table
from tests.evaluation.test_voc import detections, sample

CAT, DOG, CAR = 1, 2, 3
LABELS = ("cat", "dog", "car")
ANIMALS = (frozenset({CAT, DOG}),)
# One cat (20 x 20 pixels), one dog and one car, far from each other.
TRUTH = sample([[0, 0, 19, 19], [0, 60, 19, 79], [60, 0, 79, 19]], [CAT, DOG, CAR])


def kinds_of(table, class_id=CAT):
    return [KINDS[k] for k in error_profile(table, class_id).kinds]


def test_kinds_by_hand():
    """The boxes are of 20 x 20 pixels; a shift of 10 gives the IoU 200 / 600 = 1/3."""
    found = detections(
        [
            [0, 0, 19, 19],  # the cat
            [0, 0, 19, 19],  # the cat again
            [0, 10, 19, 29],  # shifted from the cat, IoU 1/3
            [0, 60, 19, 79],  # on the dog
            [60, 10, 79, 29],  # shifted from the car, IoU 1/3
            [80, 80, 99, 99],  # on the background
            [0, 18, 19, 37],  # IoU 40 / 760 with the cat: below 0.1
        ],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],
        [CAT] * 7,
    )
    table = match_table([found], [TRUTH], LABELS, ANIMALS)
    profile = error_profile(table, CAT)
    assert kinds_of(table) == [
        *("correct", "localization", "localization", "similar", "other"),
        *("background", "background"),
    ]
    assert profile.recall.tolist() == [1] * 7
    assert profile.shares(4) == {
        "correct": 0.25,
        "localization": 0.5,
        "similar": 0.25,
        "other": 0,
        "background": 0,
    }
    assert profile.false_positive_shares(5) == {
        "localization": 2 / 5,
        "similar": 1 / 5,
        "other": 1 / 5,
        "background": 1 / 5,
    }


def test_without_groups_no_class_is_similar():
    found = detections([[0, 60, 19, 79]], [0.9], [CAT])
    assert kinds_of(match_table([found], [TRUTH], LABELS)) == ["other"]


def test_weak_recall_counts_each_object_once():
    """Two cats: one is detected twice with IoU 1/3, the other exactly; a difficult one never."""
    truth = sample(
        [[0, 0, 19, 19], [50, 50, 69, 69], [0, 80, 19, 99]], [1, 1, 1], [False, False, True]
    )
    boxes = [[0, 10, 19, 29], [0, 10, 19, 29], [50, 50, 69, 69], [0, 90, 19, 109]]
    profile = error_profile(
        match_table([detections(boxes, [0.9, 0.8, 0.7, 0.6])], [truth], ["cat"]), 1
    )
    assert profile.num_objects == 2
    assert profile.recall.tolist() == [0, 0, 0.5, 0.5]
    assert profile.weak_recall.tolist() == [0.5, 0.5, 1, 1]


def test_detections_of_difficult_objects_are_left_out():
    truth = sample([[0, 0, 19, 19]], [CAT], [True])
    table = match_table([detections([[0, 0, 19, 19]], [0.9])], [truth], LABELS)
    assert kinds_of(table) == []


def test_confusion_by_hand():
    found = detections(
        [
            [0, 0, 19, 19],  # cat detected as a cat
            [0, 60, 19, 79],  # dog detected as a cat, with the higher score
            [0, 60, 19, 79],  # and as a dog
            [30, 30, 49, 49],  # a car on the background
            [60, 0, 79, 19],  # the car, below the threshold of the score
        ],
        [0.9, 0.8, 0.7, 0.6, 0.4],
        [CAT, CAT, DOG, CAR, CAR],
    )
    matrix = confusion_matrix(match_table([found], [TRUTH], LABELS, ANIMALS))
    assert matrix.tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]


def test_the_detected_class_wins_a_tie():
    """A cat and a dog have the same box. A detection of class dog is matched to the dog."""
    truth = sample([[0, 0, 19, 19], [0, 0, 19, 19]], [CAT, DOG])
    found = detections([[0, 0, 19, 19]], [0.9], [DOG])
    matrix = confusion_matrix(match_table([found], [truth], LABELS))
    assert matrix.tolist() == [[0] * 4, [1, 0, 0, 0], [0, 0, 1, 0], [0] * 4]


def test_similar_classes_of_voc():
    groups = [{VOC_CLASSES[k - 1] for k in group} for group in similar_classes(VOC_CLASSES)]
    assert groups[3] == {"aeroplane", "bird"}
    assert [len(group) for group in groups] == [7, 7, 3, 2]
    # COCO's names of the same classes, in another order, and one class that VOC does not have
    names = ("zebra", "couch", "dining table", "chair", "airplane")
    assert similar_classes(names) == (frozenset({2, 3, 4}),)


def test_similar_classes_of_a_file(tmp_path):
    path = tmp_path / "similar.txt"
    path.write_text("cat, dog\n\n")
    assert similar_classes(LABELS, path) == (frozenset({1, 2}),)
    path.write_text("cat, cow\n")
    with pytest.raises(ValueError, match=r"names the class 'cow', but the classes are \('cat'"):
        similar_classes(LABELS, path)
    path.write_text("cat\n")
    with pytest.raises(ValueError, match="a group needs at least two classes"):
        similar_classes(LABELS, str(path))


def test_kinds_agree_with_loops_on_random_boxes():
    """Compares with a slow version of the rules, for each pair of a detection and an object."""
    rng = np.random.default_rng(0)
    truths, founds = [], []
    for _ in range(30):
        corner = rng.integers(0, 60, (4, 2))
        boxes = np.concatenate([corner, corner + rng.integers(10, 40, (4, 2))], axis=1)
        truths.append(sample(boxes, rng.integers(1, 4, 4), rng.random(4) < 0.2))
        shifted = boxes[rng.integers(0, 4, 12)] + rng.integers(-6, 7, (12, 4))
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 2)
        founds.append(detections(shifted, rng.random(12), rng.integers(1, 4, 12)))
    table = match_table(iter(founds), iter(truths), LABELS, ANIMALS)
    for class_id in (CAT, DOG, CAR):
        assert kinds_of(table, class_id) == _slow_kinds(founds, truths, class_id)


def _slow_kinds(founds, truths, class_id):
    rows = []
    for n, (found, truth) in enumerate(zip(founds, truths, strict=True)):
        for box, score, k in zip(found["boxes"], found["scores"], found["classes"], strict=True):
            if k == class_id:
                rows.append((-score, n, np.round(np.float64(box) * 100, 3), truth))
    rows.sort(key=lambda row: row[0])
    taken, kinds = set(), []
    for _, n, box, truth in rows:
        best = {"same": (0, None), "similar": (0, None), "other": (0, None)}
        for j, (gt, label) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
            g = np.round(np.float64(gt) * 100, 3)
            h = max(0, min(box[2], g[2]) - max(box[0], g[0]) + 1)
            w = max(0, min(box[3], g[3]) - max(box[1], g[1]) + 1)
            union = np.prod(box[2:] - box[:2] + 1) + np.prod(g[2:] - g[:2] + 1) - h * w
            relation = "other"
            if label == class_id:
                relation = "same"
            elif {label, class_id} == {CAT, DOG}:
                relation = "similar"
            if h * w / union > best[relation][0]:
                best[relation] = (h * w / union, j)
        iou, j = best["same"]
        if iou >= 0.5 and truth.difficult[j]:
            continue
        if iou >= 0.5 and (n, j) not in taken:
            taken.add((n, j))
            kinds.append("correct")
        elif iou >= 0.1:
            kinds.append("localization")
        elif best["similar"][0] >= 0.1:
            kinds.append("similar")
        else:
            kinds.append("other" if best["other"][0] >= 0.1 else "background")
    return kinds
