import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from ssd_keras.config import SSD300_VOC
from ssd_keras.data.records import read_samples, write_records
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.detections import DetectionDecoder
from ssd_keras.images import warp
from ssd_keras.inference.detector import Detector, keras_detector, load_detector
from ssd_keras.inference.record_sets import detect_records
from ssd_keras.model import ssd_vgg16
from ssd_keras.progress import batched


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return ssd_vgg16(SSD300_VOC, 2, width=1 / 32, labels=("cat", "dog"))


def encoded(size, image_format="PNG"):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(buffer, image_format)
    return buffer.getvalue()


def write_saved_model(path, labels=("cat", "dog")):
    """Writes a minimal SavedModel with the signature and the labels of an exported detector."""
    path.parent.mkdir(exist_ok=True)
    names = path.parent / "labels.txt"
    names.write_text("".join(f"{label}\n" for label in labels))
    module = tf.Module()
    module.labels = tf.saved_model.Asset(str(names))
    module.score = tf.Variable(0.75)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def detect(image_bytes):
        b = tf.shape(image_bytes)[0]
        first = tf.one_hot([0], 3)  # one detection and two rows of padding
        return {
            "detection_boxes": tf.tile(first[..., None] * [0.0, 0.1, 0.5, 1.0], [b, 1, 1]),
            "detection_scores": tf.tile(first * module.score, [b, 1]),
            "detection_classes": tf.tile(tf.cast(first, tf.int32) * 2, [b, 1]),
            "num_detections": tf.ones([b], tf.int32),
            "image_decoded": tf.strings.length(image_bytes) > 10,
        }

    module.detect = detect
    tf.saved_model.save(module, str(path), {"encoded": detect})


def test_keras_model_detects_as_its_parts_do(model, tmp_path):
    model.save(tmp_path / "m.keras")
    detector = load_detector(tmp_path / "m.keras")
    images = [encoded((40, 60)), encoded((300, 300)), encoded((9, 500), "JPEG")]

    found = detector.detect(images)

    assert detector.labels == ("cat", "dog")
    for image, detections in zip(images, found, strict=True):
        alone = DetectionDecoder(SSD300_VOC)(model(warp(image, 300)[None], training=False))
        count = int(alone["num_detections"][0])
        assert count > 0
        assert len(detections["boxes"]) == len(detections["classes"]) == count
        np.testing.assert_allclose(detections["scores"], alone["scores"][0, :count], atol=1e-5)


def test_classes_of_a_model_without_labels_are_numbered():
    model = ssd_vgg16(SSD300_VOC, 2, width=1 / 32)
    assert keras_detector(model).labels == ("class 1", "class 2")


def test_saved_model(tmp_path):
    write_saved_model(tmp_path / "detector")
    detector = load_detector(tmp_path / "detector")
    found = detector.detect([b"long enough for it"] * 2)
    assert detector.labels == ("cat", "dog")
    assert len(found) == 2
    np.testing.assert_allclose(found[1]["boxes"], [[0, 0.1, 0.5, 1]])
    assert found[1]["scores"].tolist() == [0.75]
    assert found[1]["classes"].tolist() == [2]


def test_a_saved_model_of_another_maker_is_announced_before_it_runs(tmp_path, monkeypatch):
    write_saved_model(tmp_path / "detector")
    events = []
    load = tf.saved_model.load
    monkeypatch.setattr(logging, "warning", lambda text, *values: events.append(text % values))
    monkeypatch.setattr(tf.saved_model, "load", lambda p: (events.append("load"), load(p))[1])
    load_detector(tmp_path / "detector")
    assert len(events) == 2
    assert "was not written by export_saved_model: a SavedModel is a program" in events[0]
    assert events[1] == "load"


def test_a_detector_with_fewer_labels_than_classes_is_an_error(tmp_path):
    write_saved_model(tmp_path / "detector", labels=("cat",))
    detector = load_detector(tmp_path / "detector")
    with pytest.raises(ValueError, match="the model detects class 2, but has 1 labels"):
        detector.detect([b"long enough for it"])


def test_the_pixel_limit_of_a_keras_model(model, tmp_path):
    model.save(tmp_path / "m.keras")
    detector = load_detector(tmp_path / "m.keras", max_pixels=2400)
    assert detector.max_pixels == 2400
    assert len(detector.detect([encoded((40, 60))])) == 1
    with pytest.raises(ValueError, match="one of 1 images cannot be decoded"):
        detector.detect([encoded((41, 60))])
    with pytest.raises(ValueError, match=r"max_pixels \(=0\) must be at least 1"):
        load_detector(tmp_path / "m.keras", max_pixels=0)


def test_an_image_that_cannot_be_decoded_is_an_error(model, tmp_path):
    write_saved_model(tmp_path / "detector")
    for detector in (keras_detector(model), load_detector(tmp_path / "detector")):
        with pytest.raises(ValueError, match="one of 2 images cannot be decoded"):
            detector.detect([encoded((5, 5)), b"no image"])


def test_files_that_are_not_detectors_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        load_detector(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"a folder without saved_model.pb"):
        load_detector(tmp_path)
    (tmp_path / "weights.h5").touch()
    with pytest.raises(ValueError, match=r"weights.h5 must be a .keras file, a .tflite file or"):
        load_detector(tmp_path / "weights.h5")
    other = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)], name="other")
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other\.keras is not an SSD"):
        load_detector(tmp_path / "other.keras")
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    (tmp_path / "empty" / "assets").mkdir(exist_ok=True)
    (tmp_path / "empty" / "assets" / "labels.txt").write_text("cat\n")
    with pytest.raises(ValueError, match=r"the signatures \[\], but must have 'encoded'"):
        load_detector(tmp_path / "empty")


def test_detect_records_keeps_the_stored_order(tmp_path):
    write_records(draw_shapes(5, 0, image_size=64), tmp_path / "records", SHAPE_LABELS, shards=2)
    calls = []

    def run(images):
        calls.append(len(images))
        sizes = tf.strings.length(images)[:, None]
        return {
            "boxes": tf.zeros([len(images), 1, 4]),
            "scores": tf.cast(sizes, tf.float32),  # a different value for each image
            "classes": tf.ones_like(sizes),
            "num_detections": tf.ones([len(images)], tf.int32),
        }

    detections, samples, seconds = detect_records(
        Detector(SHAPE_LABELS, run), tmp_path / "records", 2
    )

    stored = list(read_samples(tmp_path / "records"))
    assert [s.image_id for s in samples] == [s.image_id for s in stored]
    assert [float(d["scores"][0]) for d in detections] == [len(s.image) for s in stored]
    assert all(s.image == b"" for s in samples)
    assert calls == [2, 2, 1]
    assert seconds > 0
    with pytest.raises(ValueError, match=r"have the labels \('disk', .*detects \('cat',\)"):
        detect_records(Detector(("cat",), run), tmp_path / "records")


def test_classes_of_records_are_found_by_name(tmp_path):
    """Detections of unused COCO ids are dropped, as for 91 outputs and records of 80 classes."""
    write_records(draw_shapes(1, 0, image_size=64), tmp_path / "records", SHAPE_LABELS, shards=1)
    labels = ("N/A 1", *reversed(SHAPE_LABELS), "N/A 7")

    def run(images):
        return {
            "boxes": tf.zeros([1, 7, 4]),
            "scores": tf.range(0.7, 0.0, -0.1)[None, :],
            "classes": tf.range(1, 8)[None, :],
            "num_detections": tf.constant([7]),
        }

    (found,), _, _ = detect_records(Detector(labels, run), tmp_path / "records")
    assert found["classes"].tolist() == [5, 4, 3, 2, 1]
    np.testing.assert_allclose(found["scores"], [0.6, 0.5, 0.4, 0.3, 0.2], rtol=1e-5)
    assert found["boxes"].shape == (5, 4)


def test_batched():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
    with pytest.raises(ValueError, match=r"batch_size \(=0\) must be at least 1"):
        list(batched([1], 0))
