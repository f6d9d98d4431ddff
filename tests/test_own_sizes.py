"""Rectangular inputs, weights files of users and decoded images, from records to exports."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.augmentation.ops import AUGMENTATIONS, augment
from ssd_keras.augmentation.view import render, whole_image
from ssd_keras.config import SSD300_VOC, SSDConfig
from ssd_keras.data.pipeline import eval_dataset, train_dataset
from ssd_keras.data.records import write_records
from ssd_keras.data.source_layers import with_sources
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes
from ssd_keras.evaluation.verification import verify
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.export.tflite.converter import export_tflite
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import load_model, ssd_vgg16
from ssd_keras.tiling import default_boxes
from ssd_keras.training.ablations import FIVE_MAPS
from ssd_keras.weights.load import load_weights
from tests.draws import sample
from tests.tiny import TINY

WIDE = SSDConfig.for_image_size((288, 512))
NARROW = 1 / 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("wide")
    write_records(draw_shapes(6, seed=1, image_size=160), path / "records", SHAPE_LABELS, shards=2)
    return path


@pytest.fixture(scope="module")
def model():
    return ssd_vgg16(WIDE, labels=SHAPE_LABELS, width=NARROW)


def test_default_boxes_are_as_wide_as_high_in_pixels():
    boxes = default_boxes(WIDE).astype(np.float64) * [288, 512, 288, 512]
    assert boxes.shape == (13864, 4)
    # Cell (1, 2) of conv4_3: its center is at 12 and 20, and its first box is 28 pixels wide.
    first = boxes[4 * (64 + 2)]
    np.testing.assert_allclose(first, [12 - 14, 20 - 14, 12 + 14, 20 + 14], atol=1e-4)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(centers.max(0), [288.0, 512.0], atol=33)


def test_trains_and_reloads(folder, model):
    data = train_dataset(folder / "records", WIDE, 2, seed=3)
    images, _ = next(iter(data))
    assert images.shape == (2, 288, 512, 3)
    model.compile("sgd", loss=MultiBoxLoss())
    history = model.fit(data, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["positives"][0] > 0
    assert next(iter(eval_dataset(folder / "records", WIDE, 2)))[0].shape == (2, 288, 512, 3)
    model.save(folder / "wide.keras")
    again = load_model(folder / "wide.keras")
    assert (again.ssd_config, again.width) == (WIDE, NARROW)
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))


def test_exports_agree_with_the_model(folder, model):
    model.save(folder / "wide.keras")
    export_saved_model(model, folder / "wide")
    export_tflite(model, folder / "wide.tflite")
    samples = list(itertools.islice(draw_shapes(2, seed=5, image_size=100), 2))
    report = verify(folder / "wide.keras", [folder / "wide", folder / "wide.tflite"], samples)
    assert report.agrees


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_axis_of_a_rectangle_is_that_of_the_square(name):
    """Rows and columns are resampled separately, each with its size, mirrored or cropped."""
    square = augment(sample(), SSDConfig.for_image_size(160), [1, 2], AUGMENTATIONS[name])
    tall = augment(sample(), SSDConfig.for_image_size((320, 160)), [1, 2], AUGMENTATIONS[name])
    assert tall["image"].shape == (320, 160, 3)
    np.testing.assert_array_equal(tall["boxes"], square["boxes"])
    # The mean color of the pixels is that of the same view.
    difference = tf.reduce_mean(tall["image"], [0, 1]) - tf.reduce_mean(square["image"], [0, 1])
    assert np.abs(difference).max() < 4


def test_a_rectangle_is_resized_as_tensorflow_does():
    seen = whole_image(sample())
    image = render(sample()["image"], seen, (40, 150), (0.0, 0, 0))
    expected = tf.image.resize(tf.io.decode_image(sample()["image"]), (40, 150))
    assert np.abs(image - expected).max() <= 0.5 + 1e-3


def test_a_released_file_starts_a_model_of_another_size(tmp_path):
    """Default boxes keep their sizes in pixels, and all layers keep their weights."""
    source = ssd_vgg16("SSD300_VOC", 2, width=NARROW, labels=["a", "b"])
    source.save(tmp_path / "square.keras")
    wide = ssd_vgg16(WIDE, 2, width=NARROW, labels=["a", "b"])
    report = load_weights(wide, tmp_path / "square.keras")
    assert any("another tiling, for image_size (=300)" in w for w in report.warnings)
    for name in ("conv1_1", "conv11_2", "conv4_3_logits"):
        np.testing.assert_array_equal(wide.get_layer(name).kernel, source.get_layer(name).kernel)
    # Offsets of conv4_3 are recoded from boxes of 30 to boxes of 28 pixels: h = h' exp(0.2 t).
    bias = np.reshape(wide.get_layer("conv4_3_offsets").bias, (4, 4))
    old = np.reshape(source.get_layer("conv4_3_offsets").bias, (4, 4))
    np.testing.assert_allclose((bias - old)[0], [0, 0, *[np.log(30 / 28) / 0.2] * 2], rtol=1e-5)


def test_heads_with_other_ratios_start_fresh(tmp_path):
    source = ssd_vgg16("SSD300_VOC", 2, width=NARROW, labels=["a", "b"])
    source.save(tmp_path / "square.keras")
    values = SSD300_VOC.to_dict()
    values["feature_maps"][0]["aspect_ratios"] = (1.5, 3.0)
    values["feature_maps"][0]["min_size"] = 16
    other = ssd_vgg16(SSDConfig.from_dict(values), 2, width=NARROW, labels=["a", "b"])
    report = load_weights(other, tmp_path / "square.keras")
    assert dict(report.layers)["conv4_3_offsets"] == "fresh"
    assert dict(report.layers)["conv4_3_norm"] == "loaded"
    assert dict(report.layers)["fc7_logits"] == "loaded"
    assert any(
        w.endswith("Random values at the start: the heads of conv4_3") for w in report.warnings
    )


def test_a_file_starts_a_model_although_no_head_fits(tmp_path):
    """All ratios are other ones, as a fit may give them."""
    ssd_vgg16(TINY, 2, width=NARROW, labels=["a", "b"]).save(tmp_path / "old.keras")
    maps = tuple(dataclasses.replace(m, aspect_ratios=(1.5,)) for m in TINY.feature_maps)
    config = dataclasses.replace(TINY, feature_maps=maps)
    model = ssd_vgg16(config, 2, width=NARROW, labels=["a", "b"])
    states = dict(load_weights(model, tmp_path / "old.keras").layers)
    assert states["conv9_2"] == "loaded"
    assert {state for name, state in states.items() if name.endswith("_logits")} == {"fresh"}


def test_a_file_starts_a_model_with_other_source_layers(tmp_path):
    """Half as large: conv10_2 is 4 x 4 instead of 3 x 3, and conv3_3 is not in the file."""
    source = ssd_vgg16(SSDConfig.for_image_size(256), 2, width=NARROW, labels=["a", "b"])
    source.save(tmp_path / "large.keras")
    config = with_sources(
        SSDConfig.for_image_size(128), ["conv3_3", "conv4_3", "fc7", "conv8_2", "conv10_2"]
    )
    model = ssd_vgg16(config, 2, width=NARROW, labels=["a", "b"])
    report = load_weights(model, tmp_path / "large.keras")
    states = dict(report.layers)
    assert {name for name, state in states.items() if state == "fresh"} == {
        *("conv3_3_norm", "conv3_3_offsets", "conv3_3_logits", "conv10_2"),
    }
    assert any("the heads of conv3_3; the layers conv10_2" in w for w in report.warnings)
    model.save(tmp_path / "early.keras")
    again = ssd_vgg16(weights=tmp_path / "early.keras", labels=["b", "c"])
    for name in ("conv3_3_norm", "conv3_3_offsets"):
        for mine, theirs in zip(
            again.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_a_file_with_two_scales_on_one_layer_is_loaded_whole(tmp_path):
    """The second map of conv10_2 has heads of its own, conv10_2_2."""
    source = ssd_vgg16(FIVE_MAPS, 2, width=NARROW, labels=["a", "b"])
    source.save(tmp_path / "five.keras")
    again = ssd_vgg16(weights=tmp_path / "five.keras", labels=["a", "b"])
    for mine, theirs in zip(again.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


# --- the user's files ---


def test_a_file_and_the_new_classes_are_enough(tmp_path):
    old = ssd_vgg16(TINY, 2, width=1 / 8, labels=["cat", "dog"])
    old.save(tmp_path / "mine.keras")
    new = ssd_vgg16(weights=tmp_path / "mine.keras", labels=["dog", "cow", "pig"])
    assert (new.ssd_config, new.width) == (TINY, 1 / 8)
    assert new.labels == ("dog", "cow", "pig")
    same = ssd_vgg16(weights=str(tmp_path / "mine.keras"))
    assert same.labels == ("cat", "dog")
    for layer in ("fc7", "fc7_logits"):
        np.testing.assert_array_equal(same.get_layer(layer).kernel, old.get_layer(layer).kernel)
    dog = np.reshape(old.get_layer("fc7_logits").kernel, (3, 3, -1, 6, 3))[..., 2]
    found = np.reshape(new.get_layer("fc7_logits").kernel, (3, 3, -1, 6, 4))[..., 1]
    np.testing.assert_array_equal(found, dog)


def test_weights_of_keras_alone(tmp_path):
    old = ssd_vgg16(TINY, 2, width=NARROW, labels=["cat", "dog"])
    old.save_weights(tmp_path / "m.weights.h5")
    new = ssd_vgg16(TINY, 2, width=NARROW, weights=tmp_path / "m.weights.h5")
    for mine, theirs in zip(new.get_weights(), old.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ValueError, match="config is missing"):
        ssd_vgg16(weights=tmp_path / "m.weights.h5", labels=["cat"])


def test_says_what_is_missing_or_wrong():
    with pytest.raises(ValueError, match="num_classes is missing"):
        ssd_vgg16("SSD300_VOC")
    values = SSD300_VOC.to_dict()
    for feature_map, size in zip(values["feature_maps"], (38, 18, 10, 5, 4, 1), strict=True):
        feature_map["size"] = size
        feature_map["step"] = 300 / size
    wrong = r"fc7: size \(=18\) must be 19; conv10_2: size \(=4\) must be 3, for image_size"
    with pytest.raises(ValueError, match=wrong):
        ssd_vgg16(SSDConfig.from_dict(values), 2, width=NARROW)
    with pytest.raises(ValueError, match="read_labels reads a file"):
        ssd_vgg16(TINY, 2, width=NARROW, labels=["traffic", "light", "bus"])


# --- augmentation of decoded images ---


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_decoded_images_give_the_pixels_of_the_file(name):
    """The image is a PNG, so that its decoded pixels are those of the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    encoded = tf.io.encode_png(pixels)
    boxes, labels = sample()["boxes"], sample()["labels"]
    own = {"image": pixels, "boxes": boxes.numpy().astype(np.float64), "labels": labels.numpy()}
    file = {"image": encoded, "boxes": boxes, "labels": labels}
    ops = AUGMENTATIONS[name]
    want = augment(file, TINY, [3, 4], ops)
    for got in (
        augment(own, TINY, [3, 4], ops),
        augment(own | {"image": pixels.astype(np.float32)}, TINY, [3, 4], ops),
        next(iter(tf.data.Dataset.from_tensors(own).map(lambda s: augment(s, TINY, [3, 4], ops)))),
    ):
        for key in ("image", "boxes", "labels", "difficult"):
            np.testing.assert_array_equal(got[key], want[key])


def test_gray_images_and_batches():
    gray = np.full((30, 40, 1), 7, np.uint8)
    own = {"image": gray, "boxes": [[0.1, 0.1, 0.9, 0.9]], "labels": [1]}
    found = augment(own, "SSD300_VOC", [0, 0], ())
    np.testing.assert_array_equal(found["image"], np.full((300, 300, 3), 7))
    with pytest.raises(ValueError, match=r"image has shape \(1, 30, 40, 1\).*before batching"):
        augment(own | {"image": gray[None]}, TINY, [0, 0])


@pytest.mark.parametrize(
    ("size", "named"),
    [
        (
            208,
            r"conv4_3: size \(=38\) must be 26; fc7: .* 13; .* 7; .* 4; .* 2; conv11_2: its",
        ),
        (144, r"conv10_2: size \(=3\) must be 1; conv11_2: its convolution is larger than the map"),
    ],
)
def test_the_layers_of_ssd300_in_a_small_image_are_one_error(size, named):
    """SSD300's last layer, 3 x 3 without padding, does not fit maps of 2 and 1 cells."""
    maps = tuple(dataclasses.replace(m, step=size / m.size) for m in SSD300_VOC.feature_maps)
    config = dataclasses.replace(SSD300_VOC, image_size=size, feature_maps=maps)
    with pytest.raises(ValueError, match=named) as caught:
        ssd_vgg16(config, 2, width=NARROW)
    assert "SSDConfig.for_image_size computes them" in str(caught.value)
