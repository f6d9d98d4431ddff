"""Converts arrays of other projects: layout, channel order, box coding and classes.

The arrays of a head have the shape [..., A * n], for A default boxes in each cell and n outputs for
each of them. The functions convert both the kernel [3, 3, channels, A * n] and the bias [A * n].
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ssd_keras.config import SSDConfig
from ssd_keras.tiling import cell_shapes
from ssd_keras.vgg16 import subsample
from ssd_keras.weights.formats import Arrays
from ssd_keras.weights.naming import Project

# Sizes of VGG16's fully connected layers before they are reduced to convolutions.
_UNREDUCED = {"fc6/kernel": 7 * 7 * 512 * 4096, "fc7/kernel": 4096 * 4096}


def convert(tensors: Mapping[str, np.ndarray], project: Project, *, full: bool = False) -> Arrays:
    """Converts the arrays of a project to the names and layout of this package.

    Args:
        tensors: Arrays of a file by their names in the file. Arrays that the project does not use
            are left out.
        project: Naming and layout of the file.
        full: Whether the model has the complete fc6 and fc7 of VGG16, which are not subsampled.

    Returns:
        float32 arrays by "<layer>/<variable>". Kernels are [height, width, in, out], conv1_1 takes
        BGR, and offsets have the order (cy, cx, h, w).

    Raises:
        ValueError: If an array is not float32, is not finite, or has a wrong number of dimensions;
            if fc6 or fc7 has a wrong shape.
    """
    arrays = {}
    for theirs, ours in project.tensors.items():
        if theirs in tensors:
            try:
                arrays[ours] = _convert(ours, tensors[theirs], project, full)
            except ValueError as error:
                raise ValueError(f"{theirs} {error}") from error
    return arrays


def _convert(name: str, array: np.ndarray, project: Project, full: bool) -> np.ndarray:
    layer, variable = name.split("/")
    if array.dtype != np.float32:
        raise ValueError(
            f"is {array.dtype}, but weights must be float32: use a float32 file. If the precision "
            "of this one is enough, convert it, for example with {k: v.float() for k, v in "
            "state_dict.items()}"
        )
    if project.dense_fc and layer in ("fc6", "fc7"):
        array = subsample(name, array, full)
    elif not full and array.size == _UNREDUCED.get(name):
        raise ValueError(
            f"has shape {array.shape}, that of a VGG16 without reduced fc6 and fc7: use a reduced "
            "VGG16 (VGG_ILSVRC_16_layers_fc_reduced, vgg16_reducedfc) or that of keras.applications"
        )
    if not np.isfinite(array).all():
        raise ValueError("holds values that are not finite")
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
    """Reshapes [..., A * n] to [..., A, n]."""
    if array.shape[-1] % outputs:
        raise ValueError(
            f"has shape {array.shape}, but its last axis must be a multiple of {outputs}"
        )
    return array.reshape(*array.shape[:-1], -1, outputs)


def _ungroup(array: np.ndarray) -> np.ndarray:
    """Reshapes [..., A, n] to [..., A * n]."""
    return array.reshape(*array.shape[:-2], -1)


def select_classes(array: np.ndarray, rows: Sequence[int], own: np.ndarray) -> np.ndarray:
    """Selects the classes of a logits head.

    Args:
        array: Kernel or bias in the file, float32 [..., A * n].
        rows: For each output of the model, the index of one of the n outputs, or -1.
        own: Kernel or bias of the model, float32 [..., A * len(rows)]. An output with the row -1
            keeps its values.

    Returns:
        float32 array with the shape of `own`.
    """
    boxes = own.shape[-1] // len(rows)
    theirs = array.reshape(*array.shape[:-1], boxes, -1)
    ours = own.reshape(*own.shape[:-1], boxes, len(rows))
    return _ungroup(np.where(np.array(rows) >= 0, theirs[..., list(rows)], ours))


def box_shapes(config: SSDConfig, clamped: bool = False) -> list[np.ndarray]:
    """Returns the (height, width) of the default boxes of a cell, for each feature map.

    Args:
        config: The tiling. `clip` is ignored.
        clamped: Whether to limit height and width to those of the image.

    Returns:
        float64 [A, 2] for each map, as fractions of the image.
    """
    shapes = [cell_shapes(m, config.integer_sizes) / config.input_size for m in config.feature_maps]
    return [np.minimum(s, 1.0) for s in shapes] if clamped else shapes


def recode_offsets(
    kernel: np.ndarray,
    bias: np.ndarray,
    theirs: np.ndarray,
    ours: np.ndarray,
    their_variances: Sequence[float],
    our_variances: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Changes an offsets head so that it predicts the same boxes from other default boxes.

    Only the shapes and variances may differ, not the centers. An offset t is decoded as
    cy = cy' + t v h' or h = h' exp(t v), with the variance v and the default box (cy', h'). To
    change h' or v, each output channel is therefore multiplied by a factor, and a constant is
    added.

    Args:
        kernel: float32 [3, 3, channels, A * 4].
        bias: float32 [A * 4].
        theirs: (height, width) of the default boxes that the head was trained with, [A, 2].
        ours: (height, width) of the default boxes of the model, [A, 2], in the same unit.
        their_variances: Divisors of (cy, cx, h, w) that the head was trained with.
        our_variances: Divisors of (cy, cx, h, w) of the model.

    Returns:
        The kernel and the bias for the model, float32, with the shapes of the given ones. Values
        are unchanged where shape and variance are the same.
    """
    ratio = theirs / ours
    variances = np.divide(their_variances, our_variances)
    factor = np.concatenate([ratio, np.ones_like(ratio)], axis=1) * variances
    constant = np.concatenate([np.zeros_like(ratio), np.log(ratio)], axis=1) / our_variances
    kernel = kernel * factor.ravel()
    bias = bias * factor.ravel() + constant.ravel()
    return kernel.astype(np.float32), bias.astype(np.float32)


def shift_mean(
    kernel: np.ndarray, bias: np.ndarray, theirs: Sequence[float], ours: Sequence[float]
) -> np.ndarray:
    """Changes the bias of conv1_1 for a model that subtracts another mean from its images.

    The outputs of conv1_1 stay the same, except at the image border: the zero padding there has the
    same effect as pixels of the mean color, which differs between the two networks.

    Args:
        kernel: Kernel of conv1_1, float32 [3, 3, 3, out], BGR.
        bias: Bias of conv1_1, float32 [out].
        theirs: RGB mean, 0..255, that the network in the file was trained with.
        ours: RGB mean, 0..255, that the model subtracts.

    Returns:
        The bias for the model, float32 [out].
    """
    difference = np.subtract(ours, theirs)[::-1]  # BGR
    return (bias + np.einsum("hwco,c->o", kernel, difference)).astype(np.float32)
