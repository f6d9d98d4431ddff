"""Initial weights of the layers that are not loaded from a file.

The original initializes new layers with "xavier" and always loads a pretrained fc6 and fc7. If
these two layers are not pretrained, "xavier" gives a large first loss: VGG's features reach the
heads at their raw scale, and hard negative mining picks the worst of 8732 random predictions. In
this case the module uses other initial weights. BUILD_NOTES.md has their measured effect (decisions
36 to 40).
"""

import math
from collections.abc import Collection

import keras
import numpy as np

# 1 / RMS of pool5 of the ImageNet VGG16 (12.3 on VOC, 6.8 on blood cells).
_POOL5_SCALE = 0.08
_HEAD_SCALE = 0.1


def initial_weights(model: keras.Model, loaded: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Returns the initial weights of all layers that are not in `loaded`.

    The weights depend on the loaded layers:

    - If fc6 is loaded, all kernels are the original's "xavier" and all biases are 0.
    - If fc6 is not loaded, the heads first predict the background everywhere and give all classes
      nearly the same score. Their kernels are "xavier" times 0.1. The bias of the background is
      ln(3 C), because three in four boxes are background after hard negative mining. The other
      biases are 0. The prior probability of RetinaNet has the same purpose.
    - If VGG16's convolutions are loaded but fc6 is not, the kernel of fc6 is also scaled down to
      remove the scale of VGG's features. From fc6 on, all layers except the heads have the gain of
      He initialization, sqrt(2). Without this gain each ReLU reduces the scale, and the maps of
      large boxes learn more slowly at first.

    Args:
        model: A model of `ssd_vgg16`.
        loaded: Names of the layers that have weights already.

    Returns:
        float32 arrays by "<layer>/<variable>". They do not depend on the current weights of the
        model and are the same in each call, because a Keras initializer keeps its seed.
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
        if name.endswith("_norm"):
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
    """Returns all weights of a model of `ssd_vgg16` by "<layer>/<variable>"."""
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
