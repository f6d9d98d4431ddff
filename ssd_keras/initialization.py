"""The start of layers that no weights were loaded into.

The original starts its new layers with "xavier" behind a pretrained fc6 and fc7. Without those two
its start is poor: VGG's features reach the heads at their raw scale, and hard negative mining picks
the worst of 8732 random guesses. What is done instead, and what it changed, is in BUILD_NOTES.md.
"""

import math

import keras
import numpy as np

# 1 / RMS of pool5 of the ImageNet VGG16 (12.3 on VOC, 6.8 on blood cells).
_POOL5_SCALE = 0.08
_HEAD_SCALE = 0.1


def balance_heads(model: keras.Model) -> None:
    """Lets a fresh model predict "background" everywhere, with near equal scores for the rest.

    The heads' kernels are scaled down, and the bias of the background is ln(3 C): after mining,
    three in four boxes are background, so this is the prior that the loss asks for. It is what
    RetinaNet's prior probability is to the focal loss.

    Args:
        model: From `ssd_vgg16`, its heads fresh.
    """
    head = model.get_layer("predictions")
    for feature_map in head.ssd_config.feature_maps:
        for kind in ("offsets", "logits"):
            kernel = model.get_layer(f"{feature_map.name}_{kind}").kernel
            kernel.assign(_HEAD_SCALE * kernel)
        logits = model.get_layer(f"{feature_map.name}_logits")
        bias = np.zeros((feature_map.boxes_per_location, 1 + head.num_classes), np.float32)
        bias[:, 0] = math.log(3 * head.num_classes)
        logits.bias.assign(bias.ravel())


def balance_backbone(model: keras.Model) -> None:
    """Gives fc6 to the last extra layer features of unit scale behind VGG16's 13 convolutions.

    fc6 takes out the scale of VGG's features; the gain of 2 of He's initialisation keeps the scale
    from falling with every ReLU, so that the maps of large boxes do not start slower.

    Args:
        model: From `ssd_vgg16`, with ImageNet's 13 convolutions and everything behind them fresh.
    """
    extras = model.get_layer("predictions").ssd_config.extra_layers
    names = ["fc6", "fc7", *(f"{extra.name}_{i}" for extra in extras for i in (1, 2))]
    for name in names:
        kernel = model.get_layer(name).kernel
        gain = math.sqrt(2) * (_POOL5_SCALE if name == "fc6" else 1.0)
        kernel.assign(gain * kernel)
