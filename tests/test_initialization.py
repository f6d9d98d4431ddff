import math

import keras
import numpy as np
import pytest

from ssd_keras.config import SSD300_VOC
from ssd_keras.initialization import initial_weights
from ssd_keras.model import ssd_vgg16
from ssd_keras.predictions import split_predictions
from ssd_keras.weights.load import load_weights
from tests.tiny import TINY


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return ssd_vgg16(TINY, 2, width=1 / 16)


def limit(layer):
    """Returns the bound of Caffe's "xavier" initializer."""
    return math.sqrt(3 / np.prod(layer.kernel.shape[:3]))


def test_a_fresh_model_says_background_with_the_prior_of_mining(model):
    # The bias of the background is ln(3 * 2), those of the two classes are 0. The softmax is
    # 6 / (6 + 1 + 1) = .75 and .125 for each class.
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
    start = initial_weights(model, VGG)
    gains = {
        n: float(np.max(start[f"{n}/kernel"] / model.get_layer(n).kernel))
        for n in ("fc6", "fc7", "conv9_2", "fc7_logits")
    }
    root = math.sqrt(2)
    wanted = {"fc6": 0.08 * root, "fc7": root, "conv9_2": root, "fc7_logits": 1}
    assert gains == pytest.approx(wanted, rel=1e-5)
    assert "conv5_3/kernel" not in start


def test_behind_a_pretrained_fc6_all_is_xavier(model):
    start = initial_weights(model, {*VGG, "fc6", "fc7"})
    for name in ("conv8_1", "fc7_logits", "fc7_offsets"):
        bound = limit(model.get_layer(name))
        assert 0.95 * bound < np.abs(start[f"{name}/kernel"]).max() <= bound * (1 + 1e-6)
        assert not start[f"{name}/bias"].any()


VGG = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]


def vgg_file(path, model, *, top):
    rng = np.random.default_rng(0)
    arrays = {}
    for name in (*VGG, *(("fc6", "fc7") if top else ())):
        shape = model.get_layer(name).kernel.shape
        arrays[f"{name}/0"] = rng.normal(size=shape).astype("f").transpose(3, 2, 0, 1)
        arrays[f"{name}/1"] = np.zeros(shape[-1], "f")
    np.savez(path, **arrays)


@pytest.mark.parametrize("kind", ["bare", "with fc6", "whole"])
def test_both_doors_lead_to_the_same_start(tmp_path, model, kind):
    """`load_weights` on a fresh model, on a used one, and `ssd_vgg16(weights=...)`."""
    path = tmp_path / ("w.keras" if kind == "whole" else "w.npz")
    config = SSD300_VOC if kind == "whole" else TINY
    if kind == "whole":
        ssd_vgg16(config, 2, width=1 / 16, labels=("cat", "dog")).save(path)
    else:
        vgg_file(path, model, top=kind == "with fc6")
    options = {"width": 1 / 16, "labels": ("dog", "bird", "cat")}
    keras.utils.set_random_seed(1)
    expected = ssd_vgg16(config, 3, weights=path, **options).get_weights()
    keras.utils.set_random_seed(1)
    loaded = ssd_vgg16(config, 3, **options)
    for _ in range(2):
        load_weights(loaded, path)
        for ours, theirs in zip(loaded.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for variable in loaded.trainable_variables:
            variable.assign(variable + 1)
    load_weights(loaded, path)
    head, fc6 = loaded.get_layer("fc7_logits"), loaded.get_layer("fc6")
    fresh = head.kernel.numpy().reshape(-1, 6, 4)[..., 2]  # "bird"
    bound = limit(head) * (0.1 if kind == "bare" else 1)
    assert np.abs(fresh).max() == pytest.approx(bound, rel=0.05)
    if kind == "bare":
        assert np.abs(fc6.kernel).max() == pytest.approx(0.08 * math.sqrt(2) * limit(fc6), rel=0.01)
