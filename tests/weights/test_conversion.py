import numpy as np
import pytest
import tensorflow as tf

from ssd_keras import boxes, vgg16
from ssd_keras.class_names import (
    COCO_CATEGORY_IDS,
    COCO_CLASSES,
    COCO_ID_NAMES,
    VOC_CLASSES,
    class_key,
    is_unused,
)
from ssd_keras.config import SSD300_VOC, SSD512_COCO
from ssd_keras.model import ssd_vgg16
from ssd_keras.weights.classes import match_classes
from ssd_keras.weights.conversion import box_shapes, convert, recode_offsets, select_classes
from ssd_keras.weights.load import load_weights
from ssd_keras.weights.projects import find_project
from tests.tiny import TINY


def test_fc_layers_keep_every_third_cell_and_every_fourth_unit():
    place = np.broadcast_to(np.arange(25088, dtype="f4")[:, None], (25088, 4096))
    unit = np.broadcast_to(np.arange(4096, dtype="f4"), (25088, 4096))
    rows, units = (vgg16.subsample("fc6/kernel", a) for a in (place, unit))
    assert rows.shape == units.shape == (3, 3, 512, 1024)
    for y, x, channel in ((0, 0, 0), (1, 2, 5), (2, 0, 511)):
        assert rows[y, x, channel, 0] == (3 * y * 7 + 3 * x) * 512 + channel
    assert list(units[0, 0, 0, [0, 1, 1023]]) == [0, 4, 4092]
    fc7 = vgg16.subsample("fc7/kernel", unit[:4096] + 10000 * place[:4096])
    assert fc7.shape == (1, 1, 1024, 1024)
    assert fc7[0, 0, 2, 3] == 12 + 80000
    assert list(vgg16.subsample("fc7/bias", np.arange(4096.0))[:3]) == [0, 4, 8]
    with pytest.raises(ValueError, match=r"\(25088, 4096\), not \(4096, 4096\)"):
        vgg16.subsample("fc6/kernel", unit[:4096])


def test_imagenet_comes_from_keras_applications(monkeypatch):
    keras = vgg16.keras

    def fake(weights, include_top):
        assert (weights, include_top) == ("imagenet", True)
        x = inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(2, name="fc1")(x))

    monkeypatch.setattr(keras.applications, "VGG16", fake)
    assert {n: a.shape for n, a in vgg16.imagenet_tensors().items()} == {
        "fc1/kernel": (4, 2),
        "fc1/bias": (2,),
    }


def test_a_failed_download_names_the_remedy(monkeypatch):
    def fail(**_):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(vgg16.keras.applications, "VGG16", fail)
    message = r"not be downloaded \(URL fetch failure\): .*--weights=FILE.*--weights=random"
    with pytest.raises(OSError, match=message):
        vgg16.imagenet_tensors()


def test_convert_reorders_layout_colors_and_offsets():
    kernel = np.arange(2 * 3 * 9, dtype="f4").reshape(2, 3, 3, 3)
    offsets = np.arange(8, dtype="f4")
    source = find_project(["vgg.0.weight", "loc.0.bias"])
    arrays = convert({"vgg.0.weight": kernel, "loc.0.bias": offsets, "other": kernel}, source)
    assert arrays["conv1_1/kernel"].shape == (3, 3, 3, 2)
    assert arrays["conv1_1/kernel"][0, 1, 0, 1] == kernel[1, 2, 0, 1]  # BGR
    assert list(arrays["conv4_3_offsets/bias"]) == [1, 0, 3, 2, 5, 4, 7, 6]
    assert list(arrays) == ["conv1_1/kernel", "conv4_3_offsets/bias"]


def test_fully_connected_layers_of_other_projects_are_named():
    dense = np.broadcast_to(np.float32(0), (4096, 25088))
    with pytest.raises(
        ValueError,
        match=r"vgg.31.weight has shape \(4096, 25088\), that of a VGG16 without reduced fc6",
    ):
        convert({"vgg.31.weight": dense}, find_project(["vgg.31.weight"]))


def test_fc1_and_fc2_reach_fc6_and_fc7(monkeypatch):
    """Loads a complete VGG16 of ImageNet into a full-width model."""
    shapes = {"fc1/kernel": (25088, 4096), "fc2/kernel": (4096, 4096)}
    model = ssd_vgg16(TINY, 2)
    for name in vgg16.CONVOLUTIONS:
        theirs = f"block{name[4]}_conv{name[6]}"
        shapes[f"{theirs}/kernel"] = model.get_layer(name).kernel.shape
        shapes[f"{theirs}/bias"] = shapes[f"{theirs}/kernel"][-1:]
    tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    units = np.arange(4096, dtype="f4")
    tensors |= {"fc1/bias": units, "fc2/bias": -units}
    tensors["fc1/kernel"] = np.broadcast_to(units, (25088, 4096))
    tensors["fc2/kernel"] = np.broadcast_to(-units[:, None], (4096, 4096))
    monkeypatch.setattr(vgg16, "imagenet_tensors", lambda: tensors)
    report = load_weights(model, "imagenet")
    assert report.project == "keras_vgg16"
    fc6, fc7 = (model.get_layer(name) for name in ("fc6", "fc7"))
    assert fc6.kernel.numpy()[2, 1, 7, 3] == fc6.bias.numpy()[3] == 12
    assert fc7.kernel.numpy()[0, 0, 3, 7] == fc7.bias.numpy()[3] == -12


def test_recoded_offsets_decode_to_the_same_boxes():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 5, 16)).astype("f4")
    bias = rng.normal(size=16).astype("f4")
    theirs, ours = rng.uniform(0.1, 1.2, (2, 4, 2))
    variances = (0.1, 0.1, 0.2, 0.2), (0.05, 0.2, 0.3, 0.1)
    new_kernel, new_bias = recode_offsets(kernel, bias, theirs, ours, *variances)
    features = rng.normal(size=(3, 3, 5))
    decoded = []
    for k, b, shape, v in (
        (kernel, bias, theirs, variances[0]),
        (new_kernel, new_bias, ours, variances[1]),
    ):
        offsets = np.einsum("hwc,hwco->o", features, k) + b
        defaults = np.concatenate([0.5 - shape / 2, 0.5 + shape / 2], axis=1)
        offsets = tf.constant(offsets.reshape(4, 4), tf.float32)
        decoded.append(boxes.decode(offsets, defaults, v))
    np.testing.assert_allclose(decoded[1], decoded[0], rtol=1e-4, atol=1e-5)


def test_recoding_to_the_same_boxes_changes_nothing():
    shapes = box_shapes(SSD300_VOC)[0]
    kernel, bias = np.full((3, 3, 2, 16), 0.3, "f4"), np.full(16, -0.7, "f4")
    v = SSD300_VOC.variances
    new_kernel, new_bias = recode_offsets(kernel, bias, shapes, shapes, v, v)
    np.testing.assert_array_equal(new_kernel, kernel)
    np.testing.assert_array_equal(new_bias, bias)


def test_box_shapes_are_those_of_a_cell():
    shapes = box_shapes(SSD300_VOC)
    assert [len(s) for s in shapes] == [4, 6, 6, 6, 4, 4]
    np.testing.assert_allclose(shapes[0][0] * 300, [30, 30], rtol=1e-6)
    np.testing.assert_allclose(shapes[1][2] * 300, [60 / 2**0.5, 60 * 2**0.5], rtol=1e-6)
    assert shapes[5].max() > 1
    assert box_shapes(SSD300_VOC, clamped=True)[5].max() == 1
    assert round(box_shapes(SSD512_COCO)[0][0, 0] * 512) == 20


def test_select_classes_keeps_the_values_of_new_classes():
    theirs = np.arange(6.0)  # 2 boxes of 3 outputs
    own = -np.arange(1.0, 9.0)  # 2 boxes of 4
    assert list(select_classes(theirs, (2, -1, 0, 1), own)) == [2, -2, 0, 1, 5, -6, 3, 4]


def test_coco_has_80_classes_of_90_ids():
    assert len(COCO_CLASSES) == len(COCO_CATEGORY_IDS) == 80
    assert COCO_CATEGORY_IDS[:13] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14)
    assert COCO_CATEGORY_IDS[-1] == 90
    assert [n for n in COCO_ID_NAMES if is_unused(n)][:2] == ["N/A 12", "N/A 26"]
    assert len(set(COCO_ID_NAMES)) == 90
    assert COCO_ID_NAMES[16] == "cat"  # id 17


def test_all_voc_classes_are_in_coco_under_some_name():
    assert {class_key(n) for n in VOC_CLASSES} <= {class_key(n) for n in COCO_CLASSES}
    assert len({class_key(n) for n in COCO_CLASSES}) == 80


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (
            (4, None, 3, None, False),
            (0, 1, 2, 3),
        ),  # equal numbers, no names: same order
        ((4, None, 3, None, True), (3, 0, 1, 2)),
        ((4, ("a", "b", "c"), 2, ("C", "new"), False), (0, 3, -1)),
        ((4, ("a", "b", "c"), 3, ("c", "b", "a"), True), (3, 2, 1, 0)),
        ((91, None, 80, None, False), (0, *COCO_CATEGORY_IDS)),
        ((91, None, 90, None, False), tuple(range(91))),
        ((91, None, 90, COCO_ID_NAMES, False), tuple(range(91))),
        (  # the names of torchvision
            (91, ["N/A" if is_unused(n) else n for n in COCO_ID_NAMES], 90, COCO_ID_NAMES, False),
            tuple(range(91)),
        ),
        ((21, None, 2, ("tv", "Dining Table"), False), (0, 20, 11)),
        ((81, None, 2, ("N/A", "aeroplane"), False), (0, -1, 5)),
    ],
)
def test_rows_of_classes(arguments, rows):
    assert match_classes(*arguments).rows == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((91, None, 3, None, False), "90 classes and the model 3: give labels to the model"),
        ((7, None, 3, ("a", "b", "c"), False), "give weights_labels"),
        ((7, ("a",), 3, ("a", "b", "c"), False), "weights_labels has 1 names, .* 6 classes"),
    ],
)
def test_classes_that_cannot_be_found_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        match_classes(*arguments)
