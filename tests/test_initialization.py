import math

import keras
import numpy as np
import pytest

from ssd_keras.initialization import balance_backbone
from ssd_keras.model import ssd_vgg16
from ssd_keras.predictions import split_predictions
from tests.tiny import TINY


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return ssd_vgg16(TINY, 2, width=1 / 16)


def limit(layer):
    """The bound of Caffe's xavier."""
    return math.sqrt(3 / np.prod(layer.kernel.shape[:3]))


def test_a_fresh_model_says_background_with_the_prior_of_mining(model):
    # Bias ln(3 * 2) against two zeros: 6 / (6 + 1 + 1) = .75, and .125 for each class.
    logits = model.get_layer("fc7_logits").bias.numpy().reshape(-1, 3)
    np.testing.assert_allclose(logits, [[math.log(6), 0, 0]] * 6, rtol=1e-6)
    image = np.full((1, 64, 64, 3), (123, 117, 104), np.float32)  # the mean: all features are 0
    offsets, logits = split_predictions(model.predict(image, verbose=0))
    np.testing.assert_allclose(keras.ops.softmax(logits)[0, 0], [0.75, 0.125, 0.125], rtol=1e-5)
    assert not np.any(offsets)


def test_heads_start_at_a_tenth_of_xavier(model):
    layer = model.get_layer("conv8_2_offsets")
    assert 0.095 < np.abs(layer.kernel).max() / limit(layer) <= 0.1 + 1e-6


def test_backbone_gets_hes_gain_and_fc6_takes_the_features_scale_out(model):
    before = {n: model.get_layer(n).kernel.numpy() for n in ("fc6", "fc7", "conv9_2", "conv5_3")}
    balance_backbone(model)
    gains = {n: float(np.max(model.get_layer(n).kernel / k)) for n, k in before.items()}
    root = math.sqrt(2)
    wanted = {"fc6": 0.08 * root, "fc7": root, "conv9_2": root, "conv5_3": 1}
    assert gains == pytest.approx(wanted, rel=1e-5)


def test_only_what_starts_random_is_balanced(tmp_path, model):
    rng = np.random.default_rng(0)
    names = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    arrays = {}
    for name in names:
        shape = model.get_layer(name).kernel.shape
        block, number = name[4:].split("_")
        arrays[f"block{block}_conv{number}/kernel"] = rng.normal(size=shape).astype("f")
        arrays[f"block{block}_conv{number}/bias"] = np.zeros(shape[-1], "f")
    np.savez(tmp_path / "vgg.npz", **arrays)
    loaded = ssd_vgg16(TINY, 2, width=1 / 16, weights=tmp_path / "vgg.npz")
    np.testing.assert_array_equal(loaded.get_layer("conv4_3").kernel, arrays["block4_conv3/kernel"])
    fc6, fc7 = (loaded.get_layer(n) for n in ("fc6", "fc7"))
    assert np.abs(fc6.kernel).max() == pytest.approx(0.08 * math.sqrt(2) * limit(fc6), rel=0.01)
    assert np.abs(fc7.kernel).max() == pytest.approx(math.sqrt(2) * limit(fc7), rel=0.02)
    head = loaded.get_layer("fc7_logits")
    assert np.abs(head.kernel).max() == pytest.approx(0.1 * limit(head), rel=0.02)
