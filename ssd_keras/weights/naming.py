"""The conventions of a project's weights: names of tensors, layout, order of channels."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ssd_keras.config import MAP_NAMES
from ssd_keras.vgg16 import CONVOLUTIONS

VGG_LAYERS = (*CONVOLUTIONS, "fc6", "fc7")
EXTRA_LAYERS = tuple(f"conv{block}_{i}" for block in range(8, 13) for i in (1, 2))
SCALE = "conv4_3_norm/scale"
OWN = "ssd_keras"


def _nothing(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The conventions of a project's weights.

    Attributes:
        name: What users call it.
        tensors: Name in the file -> "<layer>/<variable>" of ours. Complete for SSD512; an SSD300
            lacks the last map.
        mean: RGB mean, 0..255, that the network wants subtracted.
        rgb: conv1_1 takes RGB, not BGR; None: not known but from conv1_1 itself.
        channels_first: Kernels are [out, in, height, width], not [height, width, in, out].
        dense_fc: fc6 and fc7 are VGG16's fully connected layers, still to be subsampled.
        offset_order: Where cy, cx, h and w stand among the four offsets of a box.
        background_last: The background is the last class, not the first.
        tilings: "VOC" or "COCO" by the outputs for each box, background included; None stands for
            every other number, which no released file has.
        both_tilings: Numbers of outputs that it has released files of either tiling for.
        integer_sizes: Sizes of default boxes are truncated, as in `SSDConfig`.
        clamped_sizes: Default boxes are no higher and no wider than the image.
        clamped_centres: Nor are their centres outside of it.
        differences: What its own detector does otherwise, one sentence each, for the report.
        check: From the arrays of a file to notes for the report; raises ValueError for a file that
            is named alike and means something else.
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
    clamped_centres: bool = False
    both_tilings: tuple[int, ...] = ()
    differences: tuple[str, ...] = ()
    check: Callable[[Mapping[str, np.ndarray]], tuple[str, ...]] = _nothing


def each(pattern: str, places: Iterable[int | str]) -> list[str]:
    """The pattern with each place filled in."""
    return [pattern.format(place) for place in places]


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
    """Their name -> ours of every tensor, from the names of their layers in our order."""
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
