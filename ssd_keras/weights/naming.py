"""Naming and layout conventions of a project's weights files."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ssd_keras.config import MAP_NAMES, SSDConfig
from ssd_keras.vgg16 import CONVOLUTIONS

VGG_LAYERS = (*CONVOLUTIONS, "fc6", "fc7")
EXTRA_LAYERS = tuple(f"conv{block}_{i}" for block in range(8, 13) for i in (1, 2))
EARLY_SOURCES = (
    "conv1_2",
    "conv2_2",
    "conv3_3",
)  # earlier than conv4_3; no released model has them
SCALE = "conv4_3_norm/scale"
OWN = "ssd_keras"  # the project name for models of this package


def _no_notes(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Conventions of the weights files of one project.

    Attributes:
        name: Value of the argument `weights_project`.
        tensors: Name in the file -> "<layer>/<variable>" in this package. The names are those of an
            SSD512; the file of an SSD300 lacks the last map.
        mean: RGB mean, 0..255, that the project subtracts from its images.
        rgb: Whether conv1_1 takes RGB, not BGR. None if it must be detected from the kernel.
        channels_first: Whether kernels are [out, in, height, width], not [height, width, in, out].
        dense_fc: Whether fc6 and fc7 are stored as VGG16's fully connected layers, which must be
            converted to convolutions; see `subsample`.
        offset_order: Positions of cy, cx, h and w among the four offsets of a box.
        background_last: Whether the background is the last class, not the first.
        tilings: Pairs (number of outputs for each default box including the background, "VOC" or
            "COCO"). None stands for all other numbers of outputs, which no released file has.
        both_tilings: Numbers of outputs for which the project has released files of both tilings.
        integer_sizes: Whether sizes of default boxes are truncated, as in `SSDConfig`.
        clamped_sizes: Whether default boxes are limited to the height and width of the image.
        clamped_centers: Whether the centers of default boxes are limited to the image.
        differences: Differences between the project's detector and this package, one sentence
            each, for the report.
        check: Function that takes the arrays of a file and returns notes for the report. It raises
            ValueError for a file with the project's names but other conventions.
    """

    name: str
    tensors: Mapping[str, str]
    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)
    rgb: bool | None = True
    channels_first: bool = True
    dense_fc: bool = False
    offset_order: tuple[int, int, int, int] = (1, 0, 3, 2)
    background_last: bool = False
    tilings: tuple[tuple[int | None, str], ...] = ((21, "VOC"), (81, "COCO"))
    integer_sizes: bool = False
    clamped_sizes: bool = False
    clamped_centers: bool = False
    both_tilings: tuple[int, ...] = ()
    differences: tuple[str, ...] = ()
    check: Callable[[Mapping[str, np.ndarray]], tuple[str, ...]] = _no_notes


def head_names(config: SSDConfig) -> list[str]:
    """Returns the name of each feature map's head: that of its layer, unique.

    The second map of a layer has the suffix "_2".
    """
    names = [m.name for m in config.feature_maps]
    counts = [names[: k + 1].count(name) for k, name in enumerate(names)]
    return [n if count == 1 else f"{n}_{count}" for n, count in zip(names, counts, strict=True)]


def each(pattern: str, values: Iterable[int | str]) -> list[str]:
    """Returns one string for each value: the pattern, formatted with the value."""
    return [pattern.format(value) for value in values]


def layer_names(
    vgg: Iterable[str],
    extras: Iterable[str] = (),
    offsets: Iterable[str] = (),
    logits: Iterable[str] = (),
    scale: str | None = None,
    *,
    kernel: str = ".weight",
    bias: str = ".bias",
) -> dict[str, str]:
    """Builds `Project.tensors` from the names of a project's layers.

    Args:
        vgg: Names of the layers in `VGG_LAYERS`. This and the next three arguments may be shorter
            if the project has fewer layers.
        extras: Names of the layers in `EXTRA_LAYERS`.
        offsets: Names of the heads for offsets, one for each map in `MAP_NAMES`.
        logits: Names of the heads for logits, one for each map in `MAP_NAMES`.
        scale: Name of the tensor with the scale of conv4_3_norm, or None.
        kernel: Suffix for the kernel of a layer.
        bias: Suffix for the bias of a layer.

    Returns:
        Name of each tensor in the file -> "<layer>/<variable>" in this package.
    """
    layers = [
        *zip(VGG_LAYERS, vgg, strict=False),
        *zip(EXTRA_LAYERS, extras, strict=False),
        *zip(each("{}_offsets", MAP_NAMES), offsets, strict=False),
        *zip(each("{}_logits", MAP_NAMES), logits, strict=False),
    ]
    names = {
        theirs + suffix: f"{ours}/{variable}"
        for ours, theirs in layers
        for suffix, variable in ((kernel, "kernel"), (bias, "bias"))
    }
    return names if scale is None else {**names, scale: SCALE}


# Heads of this package's models with other source layers, or with two scales on one layer, and the
# normalization of early ones.
MORE_HEADS = {
    **{
        f"{source}_{kind}/{variable}": f"{source}_{kind}/{variable}"
        for source in (*EARLY_SOURCES, "conv5_3", *each("{}_2", MAP_NAMES))
        for kind in ("offsets", "logits")
        for variable in ("kernel", "bias")
    },
    **{f"{source}_norm/kernel": f"{source}_norm/scale" for source in EARLY_SOURCES},
}
