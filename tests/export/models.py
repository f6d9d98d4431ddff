"""Narrow models with random weights for the tests of the exporters."""

import keras

from ssd_keras.model import ssd_vgg16

LABELS = ("disk", "ring", "square")


def small_model(config, labels=LABELS):
    keras.utils.set_random_seed(0)
    return ssd_vgg16(config, len(labels), width=1 / 16, labels=labels)


def spread_model(config):
    """Creates a model whose heads give very different scores and offsets.

    The scores of an untrained head are nearly equal, so the scores of a wrong file could be within
    the tolerance.
    """
    model = small_model(config)
    for layer in model.layers:
        if layer.name.endswith(("_offsets", "_logits")):
            layer.kernel.assign(10 * layer.kernel)
            layer.bias.assign(0 * layer.bias)
    return model
