import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.config import SSD300_COCO, SSD300_VOC, SSD512_VOC
from ssd_keras.layers import DilatedConv2D, L2Normalization, Preprocessing
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16
from ssd_keras.predictions import Predictions, split_predictions
from ssd_keras.training.optimizer import CaffeSGD
from tests import golden_inputs as golden
from tests.processes import python
from tests.tiny import TINY

NARROW = 1 / 16


@pytest.fixture(scope="module")
def narrow():
    keras.utils.set_random_seed(0)
    return ssd_vgg16(SSD300_VOC, 3, width=NARROW, labels=("cat", "dog", "ape"))


@pytest.mark.parametrize(
    ("config", "classes", "parameters"),
    [
        (SSD300_VOC, 20, 26_285_486),
        (SSD300_COCO, 90, 35_641_826),
        (SSD512_VOC, 20, 27_188_676),
    ],
)
def test_has_the_published_number_of_parameters(config, classes, parameters):
    with keras.StatelessScope():  # shapes only: no weights are made
        model = ssd_vgg16(config, classes)
    assert model.count_params() == parameters
    assert model.output_shape == (None, config.num_default_boxes, 5 + classes)


def test_layers_have_the_papers_names_and_shapes(narrow):
    shapes = {layer.name: layer.output.shape[1:] for layer in narrow.layers}
    assert shapes["pool3"] == (38, 38, 16)  # 75 cells, rounded up
    assert shapes["conv4_3"] == shapes["conv4_3_norm"] == (38, 38, 32)
    assert shapes["pool5"] == (19, 19, 32)
    assert shapes["fc6"] == shapes["fc7"] == (19, 19, 64)
    assert [shapes[f"conv{i}_2"][0] for i in (8, 9, 10, 11)] == [10, 5, 3, 1]
    assert narrow.get_layer("fc6").dilation_rate == (6, 6)
    assert shapes["conv4_3_offsets"] == (38, 38, 16)
    assert shapes["fc7_logits"] == (19, 19, 6 * 4)


def test_ssd512_ends_in_a_4x4_convolution():
    model = ssd_vgg16(SSD512_VOC, 3, width=NARROW)
    sizes = [model.get_layer(m.name).output.shape[1] for m in SSD512_VOC.feature_maps]
    assert sizes == [64, 32, 16, 8, 4, 2, 1]
    assert model.get_layer("conv12_2").kernel.shape[:2] == (4, 4)


@pytest.mark.parametrize("training", [True, False])
def test_dilated_convolution_looks_six_cells_away(training):
    layer = DilatedConv2D(4, 3, dilation_rate=6, padding="same", bias_initializer="ones")
    features = np.random.default_rng(0).normal(size=(2, 19, 17, 5)).astype(np.float32)
    found = layer(features, training=training)
    padded = np.pad(features, [(0, 0), (6, 6), (6, 6), (0, 0)])
    expected = 1 + sum(
        padded[:, 6 * i : 6 * i + 19, 6 * j : 6 * j + 17] @ np.asarray(layer.kernel)[i, j]
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_small_features_are_normalised_exactly():
    out = L2Normalization()(tf.constant([[[[3e-3, 4e-3]]]]))  # a norm far above the epsilon
    np.testing.assert_allclose(out, [[[[12, 16]]]], rtol=1e-4)


def test_the_direct_dilated_convolution_is_for_inference(narrow):
    """In training it has a gradient function of this package. Exported graphs must not have it."""
    images = tf.TensorSpec([None, 300, 300, 3])
    for training in (True, None, False):
        run = tf.function(lambda x, t=training: narrow(x, training=t))
        operations = run.get_concrete_function(images).graph.get_operations()
        assert "SpaceToBatchND" not in {op.type for op in operations}
        own = [op for op in operations if "_gradient_op_type" in op.node_def.attr]
        assert bool(own) == (training is not False)


def test_strided_layers_pad_both_sides_as_caffe_does(narrow):
    # With a kernel of ones, cell (0, 0) of a stride-2, pad-1 convolution sees inputs 0 and 1 only:
    # 4 of 9 taps. Keras's own "same" would pad on the far side only and see all 9.
    layers = [narrow.get_layer("conv8_2_padding"), narrow.get_layer("conv8_2")]
    x = layers[0](tf.ones([1, 19, 19, layers[1].kernel.shape[2]]))
    y = tf.nn.conv2d(x, tf.ones_like(layers[1].kernel), layers[1].strides, "VALID")
    channels = layers[1].kernel.shape[2]
    assert y[0, 0, 0, 0] == 4 * channels
    assert y[0, 1, 1, 0] == 9 * channels


def test_new_layers_start_with_caffes_xavier(narrow):
    kernel = narrow.get_layer("fc6").kernel.numpy()
    limit = np.sqrt(3 / np.prod(kernel.shape[:3]))  # fan-in alone
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.99 * limit
    assert not narrow.get_layer("fc6").bias.numpy().any()


def test_preprocessing_by_hand():
    out = Preprocessing()(tf.constant([[[[123, 117, 104], [255, 0, 4]]]], tf.uint8))
    assert out.numpy().tolist() == [[[[0, 0, 0], [-100, -117, 132]]]]


def test_l2_normalization_by_hand():
    out = L2Normalization()(tf.constant([[[[3.0, 4.0], [0.0, 0.0]]]]))
    np.testing.assert_allclose(out, [[[[12, 16], [0, 0]]]], rtol=1e-6)


def test_l2_normalization_does_not_overflow_in_half_precision():
    layer = L2Normalization(dtype="mixed_float16")
    out = layer(tf.fill([1, 1, 1, 512], tf.constant(1000.0, tf.float16)))
    assert out.dtype == tf.float16
    np.testing.assert_allclose(out, 20 / np.sqrt(512), rtol=1e-3)


def test_predictions_keep_the_order_of_the_default_boxes():
    # Two maps of 2x2 and 1x1 cells with two boxes each: cell (0, 1) of the first map holds the
    # third and fourth default box.
    maps = dataclasses.replace(SSD300_VOC.feature_maps[0], aspect_ratios=(), size=2, step=150)
    last = dataclasses.replace(SSD300_VOC.feature_maps[1], aspect_ratios=(), size=1, step=300)
    config = dataclasses.replace(SSD300_VOC, feature_maps=(maps, last))
    first = np.arange(2 * 2 * 8).reshape(1, 2, 2, 8)
    second = np.arange(100, 108).reshape(1, 1, 1, 8)
    logits = [np.arange(16).reshape(1, 2, 2, 4) / 16, np.ones((1, 1, 1, 4))]
    layer = Predictions(config, num_classes=1)
    out = layer([tf.constant(m, tf.float32) for m in (first, second, *logits)])
    offsets, scores = split_predictions(out)
    assert offsets.shape == (1, 10, 4)
    assert offsets[0, 2].numpy().tolist() == [8, 9, 10, 11]
    assert offsets[0, 9].numpy().tolist() == [104, 105, 106, 107]
    assert (scores[0, 3] * 16).numpy().tolist() == [6, 7]


def test_reports_the_parts_of_the_loss():
    images = np.zeros((3, 64, 64, 3), np.float32)
    truth = np.zeros((3, 2, 5), np.float32)
    truth[:, 0] = [0.2, 0.2, 0.7, 0.7, 2]
    model = ssd_vgg16(TINY, 3, width=NARROW)
    model.compile("adam", MultiBoxLoss(TINY))
    history = model.fit(images, truth, batch_size=2, epochs=1, verbose=0).history
    logs = model.evaluate(images, truth, batch_size=2, verbose=0, return_dict=True)
    assert set(history) == {"loss", "localization_loss", "confidence_loss", "positives"}
    np.testing.assert_allclose(
        logs["loss"], logs["localization_loss"] + logs["confidence_loss"], rtol=1e-5
    )
    assert logs["positives"] == 1.5  # one per image; a batch of two images and a batch of one


def test_reloads_in_a_fresh_process(narrow, tmp_path):
    narrow.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).integers(0, 256, (1, 300, 300, 3)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "want.npy", narrow.predict(image, verbose=0))
    program = """
import sys, keras, numpy as np
import ssd_keras.model
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/model.keras")  # safe mode
got = model.predict(np.load(folder + "/image.npy"), verbose=0)
np.testing.assert_allclose(got, np.load(folder + "/want.npy"), atol=1e-5)
head = model.get_layer("predictions")
assert head.labels == ("cat", "dog", "ape"), head.labels
assert head.ssd_config.num_default_boxes == 8732
"""
    done = python(program, tmp_path)
    assert done.returncode == 0, done.stderr


def test_says_what_is_wrong():
    first, *rest = SSD300_VOC.feature_maps
    wrong = dataclasses.replace(
        SSD300_VOC, feature_maps=(dataclasses.replace(first, size=37), *rest)
    )
    with pytest.raises(ValueError, match=r"conv4_3: size \(=37\) must be 38, .* \(=300\)"):
        ssd_vgg16(wrong, 3, width=NARROW)
    unknown = dataclasses.replace(first, name="conv4_4")
    with pytest.raises(ValueError, match="conv4_4 is not a layer of the network"):
        ssd_vgg16(dataclasses.replace(SSD300_VOC, feature_maps=(unknown,)), 3, width=NARROW)
    with pytest.raises(ValueError, match=r"num_classes \(=0\)"):
        ssd_vgg16(SSD300_VOC, 0)
    with pytest.raises(ValueError, match=r"width \(=0\)"):
        ssd_vgg16(SSD300_VOC, 3, width=0)
    with pytest.raises(ValueError, match=r"2 names, but num_classes \(=3\)"):
        ssd_vgg16(SSD300_VOC, 3, width=NARROW, labels=["a", "b"])


def test_a_reloaded_model_of_mixed_precision_still_scales_its_loss(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        ssd_vgg16(TINY, 2, width=1 / 16).save(tmp_path / "m.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    again = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    again.compile(CaffeSGD(), MultiBoxLoss(TINY))
    assert isinstance(again.optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(again.optimizer.inner_optimizer, keras.optimizers.LossScaleOptimizer)


def test_outputs_equal_the_originals(tmp_path):
    """A narrow network for 64 pixels, with the same weights from a .caffemodel."""
    model = ssd_vgg16(TINY, golden.OUTPUTS - 1, width=golden.WIDTH)
    golden.write_caffemodel(tmp_path / "start.caffemodel", model)
    golden.read_caffemodel(tmp_path / "start.caffemodel", model)
    got = model(golden.images("network", golden.IMAGES), training=False).numpy()
    for part, name in ((got[..., :4], "offsets"), (got[..., 4:], "logits")):
        want = golden.answers("network")[name]
        np.testing.assert_allclose(part, want, atol=2e-5 * np.abs(want).max())
