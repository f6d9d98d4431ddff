"""Arrays of other projects turned into ours: layout, colour, box coding and classes.

Heads are [..., A * n]: A default boxes for each cell, n outputs for each of them; both the kernel
[3, 3, channels, A * n] and the bias [A * n] are turned.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ssd_keras.config import SSDConfig
from ssd_keras.tiling import cell_shapes
from ssd_keras.vgg16 import subsample
from ssd_keras.weights.naming import Project

Arrays = dict[str, np.ndarray]

# Numbers in VGG16's fully connected layers.
_UNREDUCED = {"fc6/kernel": 7 * 7 * 512 * 4096, "fc7/kernel": 4096 * 4096}


def convert(tensors: Mapping[str, np.ndarray], project: Project) -> Arrays:
    """The arrays that a project knows, under our names, in our layout and order of channels.

    Args:
        tensors: Arrays of a file, by their names.
        project: Whose names they are.

    Returns:
        Arrays by "<layer>/<variable>", kernels [height, width, in, out], colours BGR, offsets
        (cy, cx, h, w).

    Raises:
        ValueError: If an array is not float32, not finite, or has another number of dimensions
            than it must.
    """
    arrays = {}
    for theirs, ours in project.tensors.items():
        if theirs in tensors:
            try:
                arrays[ours] = _convert(ours, tensors[theirs], project)
            except ValueError as error:
                raise ValueError(f"{theirs} {error}") from error
    return arrays


def _convert(name: str, array: np.ndarray, project: Project) -> np.ndarray:
    layer, variable = name.split("/")
    if array.dtype != np.float32:
        raise ValueError(
            f"is {array.dtype}, but weights must be float32: what a narrower type has rounded away "
            "is lost; if that is acceptable, convert the file, as by {k: v.float() for k, v in "
            "state_dict.items()}"
        )
    if project.dense_fc and layer in ("fc6", "fc7"):
        array = subsample(name, array)
    elif array.size == _UNREDUCED.get(name):
        raise ValueError(
            f"has shape {array.shape}, as in the VGG16 that is not reduced: use a file of the "
            "reduced one (VGG_ILSVRC_16_layers_fc_reduced, vgg16_reducedfc) or keras.applications'"
        )
    if not np.isfinite(array).all():
        raise ValueError("holds numbers that are not finite")
    dimensions = 4 if variable == "kernel" else 1
    if array.ndim != dimensions:
        raise ValueError(f"has shape {array.shape}, but a {variable} has {dimensions} dimensions")
    if project.channels_first and variable == "kernel":
        array = array.transpose(2, 3, 1, 0)
    if project.rgb and name == "conv1_1/kernel":
        array = array[:, :, ::-1]
    if layer.endswith("_offsets"):
        array = _ungroup(_group(array, 4)[..., project.offset_order])
    return array


def _group(array: np.ndarray, outputs: int) -> np.ndarray:
    """[..., A * n] to [..., A, n]."""
    if array.shape[-1] % outputs:
        raise ValueError(f"has shape {array.shape}, but the last must be a multiple of {outputs}")
    return array.reshape(*array.shape[:-1], -1, outputs)


def _ungroup(array: np.ndarray) -> np.ndarray:
    """[..., A, n] to [..., A * n]."""
    return array.reshape(*array.shape[:-2], -1)


def select_classes(array: np.ndarray, rows: Sequence[int], own: np.ndarray) -> np.ndarray:
    """Picks the classes of a logits head.

    Args:
        array: Kernel or bias of the file, [..., A * n].
        rows: For each output of ours, which of the n outputs it is; -1 if it is none of them.
        own: Kernel or bias of ours, [..., A * len(rows)]; its values stay where the row is -1.

    Returns:
        Of the shape of `own`.
    """
    boxes = own.shape[-1] // len(rows)
    theirs = array.reshape(*array.shape[:-1], boxes, -1)
    ours = own.reshape(*own.shape[:-1], boxes, len(rows))
    return _ungroup(np.where(np.array(rows) >= 0, theirs[..., list(rows)], ours))


def box_shapes(config: SSDConfig, clamped: bool = False) -> list[np.ndarray]:
    """(height, width) of the default boxes of a cell, for each feature map.

    Args:
        config: The tiling; `clip` does not matter.
        clamped: Limit both to the size of the image.

    Returns:
        float64 [A, 2] for each map, fractions of the image.
    """
    shapes = [
        cell_shapes(m, config.integer_sizes) / config.image_size for m in config.feature_maps
    ]
    return [np.minimum(s, 1.0) for s in shapes] if clamped else shapes


def recode_offsets(
    kernel: np.ndarray,
    bias: np.ndarray,
    theirs: np.ndarray,
    ours: np.ndarray,
    their_variances: Sequence[float],
    our_variances: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Makes an offsets head predict the same boxes from default boxes of another shape.

    With default boxes of the same centres, decoding is affine in each offset before the
    exponential, so another height, width or variance is a factor and a summand for each channel:
    cy = cy' + t v h' and h = h' exp(t v).

    Args:
        kernel: [3, 3, channels, A * 4].
        bias: [A * 4].
        theirs: (height, width) of the default boxes the head was trained with, [A, 2].
        ours: Of those it shall work with, [A, 2].
        their_variances: For (cy, cx, h, w).
        our_variances: For (cy, cx, h, w).

    Returns:
        The new kernel and bias, float32. Unchanged where nothing differs.
    """
    ratio = theirs / ours
    variances = np.divide(their_variances, our_variances)
    factor = np.concatenate([ratio, np.ones_like(ratio)], axis=1) * variances
    summand = np.concatenate([np.zeros_like(ratio), np.log(ratio)], axis=1) / our_variances
    kernel = kernel * factor.ravel()
    bias = bias * factor.ravel() + summand.ravel()
    return kernel.astype(np.float32), bias.astype(np.float32)


def shift_mean(
    kernel: np.ndarray, bias: np.ndarray, theirs: Sequence[float], ours: Sequence[float]
) -> np.ndarray:
    """The bias of conv1_1 for images less another mean.

    Exact but for the outermost pixels, where the zeros of the padding stand for the mean.

    Args:
        kernel: Of conv1_1, [3, 3, 3, out], BGR.
        bias: Of conv1_1, [out].
        theirs: RGB mean that the file's network wants subtracted.
        ours: RGB mean that the model subtracts.

    Returns:
        The new bias, float32 [out].
    """
    difference = np.subtract(ours, theirs)[::-1]  # BGR
    return (bias + np.einsum("hwco,c->o", kernel, difference)).astype(np.float32)
