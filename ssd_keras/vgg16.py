"""The ImageNet VGG16 and its reduction to the backbone of SSD (section 3)."""

import keras
import numpy as np

# (convolutions, filters) of each block.
VGG_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
CONVOLUTIONS = tuple(
    f"conv{block}_{i}"
    for block, (count, _) in enumerate(VGG_BLOCKS, start=1)
    for i in range(1, count + 1)
)
# One bit for each of the 64 filters of conv1_1 in the ImageNet VGG16. The first filter has the
# highest bit. A bit is 1 if the weights for blue have a larger sum than those for red.
_BLUE_ABOVE_RED = 0x767D2BC24B6973C2


def imagenet_tensors() -> dict[str, np.ndarray]:
    """Returns the weights of keras.applications' VGG16 with its fully connected layers.

    Keras downloads the file once.

    Returns:
        float32 arrays by "<layer>/<variable>", such as "block1_conv1/kernel" and "fc1/bias".

    Raises:
        OSError: If the file cannot be downloaded.
    """
    try:
        vgg16 = keras.applications.VGG16(weights="imagenet", include_top=True)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise OSError(
            f'weights (="imagenet") could not be downloaded ({error}): check the network, or give '
            "a local file of a VGG16 or a whole SSD (ssd-keras train --weights=FILE), or start "
            "without pretrained weights (--weights=random)"
        ) from error
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in vgg16.layers
        for variable in layer.weights
    }


def subsample(name: str, array: np.ndarray, full: bool = False) -> np.ndarray:
    """Reduces an array of VGG16's fully connected layers to the convolutions fc6 and fc7.

    The function keeps every third row and column of the 7 x 7 window of fc6; the dilation of 6
    spreads them out again. It keeps every fourth of the 4096 units of each layer.

    Args:
        name: "fc6/kernel", "fc6/bias", "fc7/kernel" or "fc7/bias".
        array: The array of fc1 or fc2 in the layout of keras.applications, float32: [7 * 7 * 512,
            4096] for fc6/kernel, [4096, 4096] for fc7/kernel, [4096] for a bias.
        full: Whether to keep all values, for the complete VGG16, and only reshape them.

    Returns:
        float32 [3, 3, 512, 1024] for fc6/kernel, [1, 1, 1024, 1024] for fc7/kernel, [1024] for a
        bias. With `full` [7, 7, 512, 4096], [1, 1, 4096, 4096] and [4096].

    Raises:
        ValueError: If the array has another shape.

    Source: section 3, after DeepLab (Chen et al. 2015).
    """
    shapes = {"fc6/kernel": (25088, 4096), "fc7/kernel": (4096, 4096)}
    expected = shapes.get(name, (4096,))
    if array.shape != expected:
        raise ValueError(f"{name} must be made from an array {expected}, not {array.shape}")
    step = 1 if full else 4
    if name == "fc6/kernel":
        window = 1 if full else 3
        return array.reshape(7, 7, 512, 4096)[::window, ::window, :, ::step]
    if name == "fc7/kernel":
        return array[::step, ::step][None, None]
    return array[::step]


def takes_rgb(conv1_1: np.ndarray) -> bool | None:
    """Detects whether an ImageNet VGG16 takes RGB or BGR, from the kernel of its first layer.

    VGG16 files with PyTorch's names were converted from Caffe's file in unknown ways, so either
    order is possible.

    Args:
        conv1_1: Kernel of conv1_1, float32 [64, 3, 3, 3]: filters, colors, height, width.

    Returns:
        True for RGB, False for BGR, None if the kernel is not that of the ImageNet VGG16.
    """
    if conv1_1.shape != (64, 3, 3, 3):
        return None
    sums = conv1_1.sum((2, 3), dtype=np.float64)
    signs = int("".join(str(int(first > last)) for first, _, last in sums.tolist()), 2)
    as_bgr = 64 - (signs ^ _BLUE_ABOVE_RED).bit_count()  # filters that agree with BGR
    return False if as_bgr >= 60 else True if as_bgr <= 4 else None
