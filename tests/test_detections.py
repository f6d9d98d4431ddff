import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.boxes import encode
from ssd_keras.config import SSD300_VOC
from ssd_keras.detections import DetectionDecoder, unpad
from ssd_keras.tiling import default_boxes
from tests import golden_inputs as golden
from tests.tiny import TINY

BOXES = default_boxes(SSD300_VOC)


def predictions(*wanted, classes=3):
    """Returns predictions from (index of the default box, box, class, score)."""
    out = np.zeros((1, 8732, 5 + classes), np.float32)
    out[..., 4] = 20  # background
    for i, box, label, score in wanted:
        out[0, i, :4] = encode(np.array([box], np.float32), BOXES[i : i + 1], (0.1, 0.1, 0.2, 0.2))
        out[0, i, 4:] = -30
        out[0, i, 4] = np.log(1 - score)
        out[0, i, 4 + label] = np.log(score)
    return tf.constant(out)


A, NEAR_A, FAR = (0.1, 0.1, 0.5, 0.5), (0.1, 0.12, 0.5, 0.52), (0.6, 0.6, 0.9, 0.9)


def test_detections_by_hand():
    # NEAR_A overlaps A by .36 / .44 = .82: suppressed in A's class, kept in another.
    decoder = DetectionDecoder(SSD300_VOC, max_detections=5)
    found = decoder(
        predictions((7, A, 2, 0.9), (9, NEAR_A, 2, 0.8), (11, NEAR_A, 1, 0.7), (13, FAR, 2, 0.6))
    )
    assert found["num_detections"].numpy().tolist() == [3]
    assert found["classes"].numpy().tolist() == [[2, 1, 2, 0, 0]]
    np.testing.assert_allclose(found["scores"], [[0.9, 0.7, 0.6, 0, 0]], rtol=1e-5)
    np.testing.assert_allclose(found["boxes"][0], [A, NEAR_A, FAR, [0] * 4, [0] * 4], atol=1e-5)
    assert found["classes"].dtype == tf.int32


def test_thresholds_are_strict():
    even = np.zeros((1, 8732, 8), np.float32)  # logits all 0: every class has exactly 1/4
    at = DetectionDecoder(SSD300_VOC, score_threshold=0.25)
    assert at(even)["num_detections"].numpy().tolist() == [0]
    below = DetectionDecoder(SSD300_VOC, score_threshold=0.2499)
    assert below(even)["num_detections"].numpy().tolist() == [200]


@pytest.mark.parametrize(("shift", "kept"), [(0.1480, 1), (0.1555, 2)])
def test_suppression_is_above_an_iou_of_0_45(shift, kept):
    # The IoU of A and A shifted by s is (.4 - s) / (.4 + s): .4599 and .4401.
    shifted = (0.1, 0.1 + shift, 0.5, 0.5 + shift)
    found = DetectionDecoder(SSD300_VOC)(predictions((7, A, 1, 0.9), (9, shifted, 1, 0.8)))
    assert found["num_detections"].numpy().tolist() == [kept]


def test_clips_only_on_output():
    # Unclipped, the two boxes share .4 of .8; clipped to the image they would be the same.
    wide, wider = (0.4, -0.2, 0.8, 0.2), (0.4, -0.7, 0.8, 0.2)
    found = DetectionDecoder(SSD300_VOC, iou_threshold=0.7)(
        predictions((7, wide, 1, 0.9), (9, wider, 1, 0.8))
    )
    assert found["num_detections"].numpy().tolist() == [2]
    np.testing.assert_allclose(found["boxes"][0, :2], [[0.4, 0, 0.8, 0.2]] * 2, atol=1e-5)


def test_a_crowd_on_one_object_does_not_hide_another():
    # 500 better boxes at one place and one box elsewhere. A limit of 400 boxes before suppression
    # would lose the single box.
    crowd = [(i, A, 1, 0.9) for i in range(500)]
    found = DetectionDecoder(SSD300_VOC)(predictions(*crowd, (600, FAR, 1, 0.5)))
    assert found["num_detections"].numpy().tolist() == [2]


def test_caps_at_max_detections_the_best_over_all_classes():
    rng = np.random.default_rng(0)
    wanted = []
    for i in range(30):
        y, x = divmod(i, 6)
        box = (y / 6, x / 6, y / 6 + 0.1, x / 6 + 0.1)
        wanted.append((i, box, 1 + i % 3, float(rng.uniform(0.1, 0.9))))
    found = DetectionDecoder(SSD300_VOC, max_detections=8)(predictions(*wanted))
    best = sorted((w[3] for w in wanted), reverse=True)[:8]
    np.testing.assert_allclose(found["scores"][0], best, rtol=1e-4)


def test_same_in_a_graph_and_for_each_image_of_a_batch():
    rng = np.random.default_rng(1)
    values = tf.constant(rng.normal(size=(3, 8732, 8)).astype(np.float32))
    decoder = DetectionDecoder(SSD300_VOC, score_threshold=0.6)
    batch = tf.function(decoder.call)(values)
    for i in range(3):
        alone = decoder(values[i : i + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(batch[name][i], value[0], atol=1e-6)


def test_nothing_found_is_all_zero():
    for value in DetectionDecoder(SSD300_VOC)(predictions()).values():
        assert not value.numpy().any()


def test_round_trips_and_says_what_is_wrong():
    decoder = DetectionDecoder(SSD300_VOC, score_threshold=0.2)
    again = DetectionDecoder.from_config(decoder.get_config())
    assert again.get_config() == decoder.get_config()
    assert isinstance(
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(decoder)),
        DetectionDecoder,
    )
    for argument in ({"score_threshold": 1.0}, {"iou_threshold": 0.0}, {"max_detections": 0}):
        with pytest.raises(ValueError, match=next(iter(argument))):
            DetectionDecoder(SSD300_VOC, **argument)
    with pytest.raises(ValueError, match="8732 default boxes"):
        decoder(np.zeros((1, 5, 8), np.float32))


def test_equals_the_original():
    """The DetectionOutput layer. The original clips its boxes during evaluation."""
    outputs = DetectionDecoder(TINY)(golden.predictions("detections"))
    found = unpad({name: value.numpy() for name, value in outputs.items()})
    answers = golden.answers("detections")
    for i, image in enumerate(found):
        assert image["classes"].tolist() == answers[f"{i}/classes"].tolist()
        np.testing.assert_allclose(image["scores"], answers[f"{i}/scores"], rtol=1e-5)
        np.testing.assert_allclose(image["boxes"], answers[f"{i}/boxes"], atol=1e-6)


def test_the_ends_of_the_ranges_are_allowed():
    decoder = DetectionDecoder(SSD300_VOC, 0.0, 1.0, 1)
    found = decoder(predictions((7, A, 1, 0.9), (9, A, 1, 0.8)))
    assert found["num_detections"].numpy().tolist() == [1]
    np.testing.assert_allclose(found["scores"], [[0.9]], rtol=1e-5)


def test_shapes_of_the_output():
    shapes = DetectionDecoder(SSD300_VOC, max_detections=7).compute_output_shape((2, 8732, 8))
    assert shapes == {
        "boxes": (2, 7, 4),
        "scores": (2, 7),
        "classes": (2, 7),
        "num_detections": (2,),
    }


def test_the_defaults_are_those_of_the_original():
    config = DetectionDecoder(SSD300_VOC).get_config()
    found = [config[name] for name in ("score_threshold", "iou_threshold", "max_detections")]
    assert found == [0.01, 0.45, 200]
