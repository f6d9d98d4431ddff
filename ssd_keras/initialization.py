"""The start of layers that no weights were loaded into.

The original starts its new layers with "xavier" behind a pretrained fc6 and fc7. Without those two
its start is poor: VGG's features reach the heads at their raw scale, and hard negative mining picks
the worst of 8732 random guesses. What is done instead, and what it changed, is in BUILD_NOTES.md.
"""

import math
from collections.abc import Collection

import keras
import numpy as np

# 1 / RMS of pool5 of the ImageNet VGG16 (12.3 on VOC, 6.8 on blood cells).
_POOL5_SCALE = 0.08
_HEAD_SCALE = 0.1


def initial_weights(model: keras.Model, loaded: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The start of all layers that nothing was or will be loaded into.

    With fc6 loaded it is the original's "xavier". Otherwise the heads predict "background"
    everywhere, with near equal scores for the rest: their kernels are scaled down, and the bias of
    the background is ln(3 C), since after mining three in four boxes are background. That is what
    RetinaNet's prior probability is to the focal loss. Behind VGG16's bare convolutions, moreover,
    fc6 takes out the scale of VGG's features, and from there on the gain of 2 of He's
    initialisation keeps the scale from falling with every ReLU, so that the maps of large boxes do
    not start slower.

    Args:
        model: From `ssd_vgg16`.
        loaded: Names of layers that have weights.

    Returns:
        Arrays by "<layer>/<variable>". They do not depend on what the layers hold now, and are the
        same at each call: a Keras initializer keeps its seed.
    """
    num_classes = model.num_classes
    gain, fc6_gain = 1.0, 1.0
    if "conv1_1" in loaded:
        gain, fc6_gain = math.sqrt(2), math.sqrt(2) * _POOL5_SCALE
    arrays = {}
    for layer in model.layers:
        name = layer.name
        if not layer.weights or name in loaded:
            continue
        if name == "conv4_3_norm":
            arrays[f"{name}/scale"] = np.full(layer.scale.shape, layer.initial_scale, np.float32)
            continue
        kernel = np.asarray(layer.kernel_initializer(layer.kernel.shape))
        bias = np.zeros(layer.bias.shape, np.float32)
        if "fc6" not in loaded:
            if name.endswith(("_offsets", "_logits")):
                kernel = np.float32(_HEAD_SCALE) * kernel
            else:
                kernel = np.float32(fc6_gain if name == "fc6" else gain) * kernel
            if name.endswith("_logits"):
                bias[:: 1 + num_classes] = math.log(3 * num_classes)
        arrays |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
    return arrays


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All weights of a model of `ssd_vgg16` by "<layer>/<variable>"."""
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
