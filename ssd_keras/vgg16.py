"""The ImageNet VGG16 and its reduction to the backbone of SSD."""

import keras
import numpy as np

VGG_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # (convolutions, filters)
CONVOLUTIONS = tuple(
    f"conv{block}_{i}"
    for block, (count, _) in enumerate(VGG_BLOCKS, start=1)
    for i in range(1, count + 1)
)
# Of each filter of conv1_1, whether it adds up to more for blue than for red: the first is the
# highest bit.
_BLUE_ABOVE_RED = 0x767D2BC24B6973C2


def imagenet_tensors() -> dict[str, np.ndarray]:
    """keras.applications' VGG16 with its fully connected layers, downloaded once by Keras.

    Returns:
        float32 arrays by "<layer>/<variable>", as in `block1_conv1/kernel` and `fc1/bias`.

    Raises:
        OSError: If the file cannot be downloaded.
    """
    try:
        vgg16 = keras.applications.VGG16(weights="imagenet", include_top=True)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise OSError(
            f'weights (="imagenet") could not be downloaded ({error}): without a network, give '
            "the path of a local .npz, .h5 or .keras file of VGG16 weights"
        ) from error
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in vgg16.layers
        for variable in layer.weights
    }


def subsample(name: str, array: np.ndarray, full: bool = False) -> np.ndarray:
    """Reduces VGG16's fully connected layers to the convolutions fc6 and fc7 (section 3).

    Every third row and column of fc6's 7 x 7 window is kept, which the dilation of 6 spreads out
    again, and every fourth of the 4096 units of either layer.

    Args:
        name: "fc6/kernel", "fc6/bias", "fc7/kernel" or "fc7/bias".
        array: The array of fc1 or fc2 in keras.applications' layout: [7 * 7 * 512, 4096],
            [4096, 4096] or [4096].
        full: Keep all of it, as convolutions of the full VGG16: [7, 7, 512, 4096],
            [1, 1, 4096, 4096] or [4096].

    Returns:
        [3, 3, 512, 1024], [1, 1, 1024, 1024] or [1024].

    Raises:
        ValueError: If the array has another shape.

    Source: DeepLab's subsampling (Chen et al. 2015), as section 3 of the paper cites it.
    """
    shapes = {"fc6/kernel": (25088, 4096), "fc7/kernel": (4096, 4096)}
    expected = shapes.get(name, (4096,))
    if array.shape != expected:
        raise ValueError(f"{name} is made from an array {expected}, not {array.shape}")
    step = 1 if full else 4
    if name == "fc6/kernel":
        window = 1 if full else 3
        return array.reshape(7, 7, 512, 4096)[::window, ::window, :, ::step]
    if name == "fc7/kernel":
        return array[::step, ::step][None, None]
    return array[::step]


def takes_rgb(conv1_1: np.ndarray) -> bool | None:
    """Whether ImageNet's VGG16 was stored for RGB or for BGR, by its first kernel.

    Bare VGG16 files under PyTorch's names come from Caffe's file by ways that are not written down.

    Args:
        conv1_1: [64, 3, 3, 3], filters first, then colours.

    Returns:
        None if it is another network.
    """
    if conv1_1.shape != (64, 3, 3, 3):
        return None
    sums = conv1_1.sum((2, 3), dtype=np.float64)
    signs = int("".join(str(int(first > last)) for first, _, last in sums.tolist()), 2)
    as_bgr = 64 - (signs ^ _BLUE_ABOVE_RED).bit_count()  # filters out of 64
    return False if as_bgr >= 60 else True if as_bgr <= 4 else None
