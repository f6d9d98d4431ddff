import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssd_keras.class_names import COCO_CLASSES, VOC_CLASSES, read_labels
from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import EncodedImage
from ssd_keras.data.sources.source import Object, make_sample, path_inside, shuffle_by_name
from tests.data_sets import write
from tests.processes import ROOT

LABELS = ROOT / "data" / "labels"


@given(hnp.arrays(np.float64, (5, 4), elements=st.floats(-2, 2) | st.just(float("nan"))))
def test_boxes_of_samples_are_always_valid_and_none_is_lost_silently(boxes):
    notes = Notes()
    objects = [Object(tuple(box), label) for label, box in enumerate(boxes.tolist(), start=1)]
    sample = make_sample(EncodedImage(b"", 2, 4), "a", objects, notes, size=(1, 1))
    assert sample.boxes.dtype == np.float32
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= 1).all()
    assert (sample.boxes[:, 2:] > sample.boxes[:, :2]).all()
    assert len(sample.boxes) == len(sample.labels) == len(sample.difficult)
    assert len(sample.labels) + sum(map(len, notes.skipped.values())) == 5
    for label, box in zip(sample.labels, sample.boxes, strict=True):
        np.testing.assert_allclose(box, np.clip(boxes[label - 1], 0, 1), atol=1e-6)


def test_a_box_too_thin_for_float32_is_dropped():
    notes = Notes()
    objects = [Object((0.5, 0.5, 0.5 + 1e-12, 0.6), 1)]
    assert make_sample(EncodedImage(b"", 2, 4), "a", objects, notes, size=(1, 1)).boxes.size == 0
    assert sum(map(len, notes.skipped.values())) == 1


def test_a_thousand_objects():
    objects = [Object((0, 0, 1, 1), 1)] * 1000
    sample = make_sample(EncodedImage(b"", 2, 4), "a", objects, Notes())
    assert sample.boxes.shape == (1000, 4)
    np.testing.assert_allclose(sample.boxes[0], [0, 0, 0.5, 0.25])


def test_label_files(tmp_path):
    assert list(read_labels(LABELS / "voc.txt"))[:2] == ["aeroplane", "bicycle"]
    coco = read_labels(LABELS / "coco.txt")
    ilsvrc = read_labels(LABELS / "ilsvrc_det.txt")
    assert (len(read_labels(LABELS / "voc.txt")), len(coco), len(ilsvrc)) == (20, 80, 200)
    assert list(coco)[-1] == "toothbrush"
    # The weight importer compares class names with these lists.
    assert (tuple(read_labels(LABELS / "voc.txt")), tuple(coco)) == (VOC_CLASSES, COCO_CLASSES)
    assert len(set(ilsvrc.values())) == 200
    assert all(len(wnid) == 9 and wnid[0] == "n" for wnid in ilsvrc)
    # The order in the original's labelmap_ilsvrc_det.prototxt.
    assert list(ilsvrc.items())[27:29] == [("n02883205", "bow_tie"), ("n02879718", "bow")]
    assert (ilsvrc["n00007846"], ilsvrc["n02391049"]) == ("person", "zebra")

    write(tmp_path / "labels.txt", "\ufeffguinea pig\n\n n1\tWüste \n")
    assert read_labels(tmp_path / "labels.txt") == {"guinea pig": "guinea pig", "n1": "Wüste"}
    write(tmp_path / "labels.txt", "cat\ncat\n")
    with pytest.raises(ValueError, match="has the class 'cat' twice"):
        read_labels(tmp_path / "labels.txt")
    write(tmp_path / "labels.txt", "\n")
    with pytest.raises(ValueError, match="is empty"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.txt does not exist"):
        read_labels(tmp_path / "none.txt")


def test_the_shuffled_order_depends_on_names_only():
    names = [f"{k:06d}" for k in range(400)]
    shuffled = shuffle_by_name(names, str)
    assert shuffled[:3] == ["000053", "000310", "000071"]
    assert shuffle_by_name(reversed(names), str) == shuffled
    assert sorted(shuffled) == names
    assert abs(np.corrcoef(np.array(shuffled, int), np.arange(400))[0, 1]) < 4 / np.sqrt(400)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b"])
def test_paths_that_leave_the_folder(name):
    with pytest.raises(ValueError, match="points outside"):
        path_inside(pathlib.Path("set"), name)


def test_paths_inside_the_folder():
    assert path_inside(pathlib.Path("set"), "a..b/c d.jpg") == pathlib.Path("set/a..b/c d.jpg")
