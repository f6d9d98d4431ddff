"""Whose weights a file holds: how its tensors are named and what they mean.

Everything here is read off the projects' own code; the comments name it.
"""

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
class Source:
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


def find_source(tensors: Iterable[str], name: str | None = None) -> Source:
    """The source that names its tensors as a file does.

    Args:
        tensors: Names in the file.
        name: Name of the source, if it is known.

    Returns:
        The source of that name, or the one that knows most of the tensors.

    Raises:
        ValueError: If no source has that name, or none knows any of the tensors.
    """
    if name is not None:
        for source in SOURCES:
            if source.name == name:
                return source
        raise ValueError(f"source (={name}) must be one of {', '.join(s.name for s in SOURCES)}")
    names = set(tensors)
    best = max(SOURCES, key=lambda source: len(names & source.tensors.keys()))
    if not names & best.tensors.keys():
        raise ValueError(
            f"its tensors ({', '.join(sorted(names)[:4])} ...) are named as in no known source: "
            "it must be a VGG16 or a VGG16-SSD"
        )
    return best


def _each(pattern: str, places: Iterable[int | str]) -> list[str]:
    return [pattern.format(place) for place in places]


def _names(
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
        *zip(_each("{}_offsets", MAP_NAMES), offsets, strict=False),
        *zip(_each("{}_logits", MAP_NAMES), logits, strict=False),
    ]
    names = {
        theirs + suffix: f"{ours}/{variable}"
        for ours, theirs in layers
        for suffix, variable in ((kernel, "kernel"), (bias, "bias"))
    }
    return names if scale is None else {**names, scale: SCALE}


# Where VGG16's convolutions, fc6 and fc7 stand in a torch.nn.Sequential.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)
_PAIRS = tuple(f"{i}.{j}" for i in range(5) for j in range(2))
_CAFFE_EXTRAS = tuple(f"conv{block}_{i}" for block in range(6, 11) for i in (1, 2))
_CAFFE_MAPS = ("conv4_3_norm", "fc7", *_CAFFE_EXTRAS[1::2])


def _check_torchvision(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    if any(name.startswith("backbone.extra.5.") for name in tensors):
        raise ValueError(
            "torchvision's network for 512 pixels (highres) has last maps of 8, 6, 4 and 1 cells, "
            "the paper's and this one of 8, 4, 2 and 1: its weights fit torchvision only"
        )
    return ()


def _check_torchvision_vgg16(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    classifier = tensors.get("classifier.0.weight")
    if classifier is not None and np.isfinite(classifier).all():
        raise ValueError(
            "torchvision's VGG16 for classification wants images scaled to a deviation of 1, as "
            "this network does not: use vgg16_features-amdegroot-88682ab5.pth (IMAGENET1K_FEATURES)"
        )
    return ("images: 0..255 less the mean assumed, as IMAGENET1K_FEATURES has them",)


def _check_mmdetection(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    version = tensors.get("meta.mmdet_version")
    if version is None:
        return ("mmdetection 2.0 or later assumed; 1.x has the background first",)
    if version[0] < 2:
        raise ValueError(
            f"mmdetection {'.'.join(map(str, version))} wrote it: 1.x has the background first, "
            "rounded default boxes and boxes one pixel wider, and its upgrade script changes the "
            "first of the three only: use a model of mmdetection 2.0 or later"
        )
    return ()


def _check_amdegroot(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return (
        "images: RGB assumed, as ssd300_mAP_77.43_v2.pth has them; ssd_300_VOC0712.pth is Caffe's, "
        "in BGR: give source amdegroot_caffe for it",
    )


_BOX_CLIP = "DIFFERENCE: {} the boxes to the image before suppression, this model after it"
_MMDETECTION_DIFFERENCES = (
    _BOX_CLIP.format("mmdetection cuts"),
    "DIFFERENCE: mmdetection limits height and width of a box to 1/62.5 and 62.5 of the default "
    "box's (wh_ratio_clip)",
)


_AMDEGROOT = _names(
    _each("vgg.{}", _PLACES),
    _each("extras.{}", range(10)),
    _each("loc.{}", range(7)),
    _each("conf.{}", range(7)),
    "L2Norm.weight",
)

SOURCES = (
    # keras.applications.vgg16
    Source(
        name="keras_vgg16",
        tensors=_names(
            [*(f"block{name[4]}_conv{name[6]}" for name in CONVOLUTIONS), "fc1", "fc2"],
            kernel="/kernel",
            bias="/bias",
        ),
        mean=(123.68, 116.779, 103.939),
        rgb=False,
        channels_first=False,
        dense_fc=True,
    ),
    # pytorch/vision 0.29.1: torchvision/models/detection/ssd.py, anchor_utils.py
    Source(
        name="torchvision",
        tensors=_names(
            [
                *_each("backbone.features.{}", _PLACES[:10]),
                *_each("backbone.extra.0.{}", ("1", "3", "5", "7.1", "7.3")),
            ],
            _each("backbone.extra.{}", (f"{i}.{j}" for i in range(1, 5) for j in (0, 2))),
            _each("head.regression_head.module_list.{}", range(6)),
            _each("head.classification_head.module_list.{}", range(6)),
            "backbone.scale_weight",
        ),
        tilings=((91, "COCO"), (None, "COCO")),
        clamped_sizes=True,
        differences=(
            _BOX_CLIP.format("torchvision cuts"),
            "DIFFERENCE: torchvision limits height and width of a box to 62.5 times the default "
            "box's (bbox_xform_clip)",
        ),
        check=_check_torchvision,
    ),
    # pytorch/vision: vgg16_features-amdegroot-88682ab5.pth, which its SSD starts from
    Source(
        name="torchvision_vgg16",
        tensors=_names(_each("features.{}", _PLACES[:13])),
        rgb=None,
        check=_check_torchvision_vgg16,
    ),
    # amdegroot/ssd.pytorch 5b0b77f: ssd.py, data/config.py, layers/functions/prior_box.py
    Source(
        name="amdegroot",
        tensors=_AMDEGROOT,
        tilings=((21, "VOC"), (81, "COCO"), (None, "COCO")),
        clamped_sizes=True,
        clamped_centres=True,
        check=_check_amdegroot,
    ),
    # Its ssd_300_VOC0712.pth: Caffe's SSD300 under those names, colours and default boxes included
    Source(name="amdegroot_caffe", tensors=_AMDEGROOT, rgb=False),
    # amdegroot/ssd.pytorch: vgg16_reducedfc.pth, which train.py and lufficc/SSD start from
    Source(name="amdegroot_vgg16", tensors=_names(_each("{}", _PLACES)), rgb=None),
    # lufficc/SSD: ssd/modeling, ssd/config/defaults.py
    Source(
        name="lufficc",
        tensors=_names(
            _each("backbone.vgg.{}", _PLACES),
            _each("backbone.extras.{}", range(10)),
            _each("box_head.predictor.reg_headers.{}", range(7)),
            _each("box_head.predictor.cls_headers.{}", range(7)),
            "backbone.l2_norm.weight",
        ),
        clamped_sizes=True,
        clamped_centres=True,
    ),
    # open-mmlab/mmdetection from 2.14: ssd_neck.py, ssd_head.py, anchor_generator.py
    Source(
        name="mmdetection",
        tensors=_names(
            _each("backbone.features.{}", _PLACES),
            _each("neck.extra_layers.{}.conv", _PAIRS),
            _each("bbox_head.reg_convs.{}.0", range(7)),
            _each("bbox_head.cls_convs.{}.0", range(7)),
            "neck.l2_norm.weight",
        ),
        mean=(123.675, 116.28, 103.53),
        background_last=True,
        integer_sizes=True,
        differences=_MMDETECTION_DIFFERENCES,
        check=_check_mmdetection,
    ),
    # open-mmlab/mmdetection 2.0 to 2.13: tools/model_converters/upgrade_ssd_version.py
    Source(
        name="mmdetection_old",
        tensors=_names(
            _each("backbone.features.{}", _PLACES),
            _each("backbone.extra.{}", range(10)),
            _each("bbox_head.reg_convs.{}", range(7)),
            _each("bbox_head.cls_convs.{}", range(7)),
            "backbone.l2_norm.weight",
        ),
        mean=(123.675, 116.28, 103.53),
        background_last=True,
        integer_sizes=True,
        differences=_MMDETECTION_DIFFERENCES,
        check=_check_mmdetection,
    ),
    # weiliu89/caffe 4817bf8: python/caffe/model_libs.py, examples/ssd/ssd_{pascal,coco}.py
    Source(
        name="caffe",
        tensors=_names(
            VGG_LAYERS,
            _CAFFE_EXTRAS,
            _each("{}_mbox_loc", _CAFFE_MAPS),
            _each("{}_mbox_conf", _CAFFE_MAPS),
            "conv4_3_norm/0",
            kernel="/0",
            bias="/1",
        ),
        rgb=False,
        integer_sizes=True,
    ),
    # pierluigiferrari/ssd_keras 3ac9ada: models/keras_ssd300.py, keras_ssd512.py
    Source(
        name="pierluigi",
        tensors=_names(
            VGG_LAYERS,
            _CAFFE_EXTRAS,
            _each("{}_mbox_loc", _CAFFE_MAPS),
            _each("{}_mbox_conf", _CAFFE_MAPS),
            "conv4_3_norm/conv4_3_norm_gamma",
            kernel="/kernel",
            bias="/bias",
        ),
        rgb=False,
        channels_first=False,
        tilings=((21, "VOC"), (81, "COCO"), (201, "VOC")),  # 201: ILSVRC, SSD300
        both_tilings=(21,),  # COCO[1], 07+12+COCO and 07++12+COCO keep COCO's
    ),
    # chainer/chainercv: links/model/ssd/ssd_vgg16.py, multibox_coder.py, examples/ssd/caffe2npz.py
    Source(
        name="chainercv",
        tensors=_names(
            _each("extractor/{}", (*CONVOLUTIONS, "conv6", "conv7")),
            _each("extractor/{}", EXTRA_LAYERS),
            _each("multibox/loc/{}", range(7)),
            _each("multibox/conf/{}", range(7)),
            "extractor/norm4/scale",
            kernel="/W",
            bias="/b",
        ),
        offset_order=(0, 1, 2, 3),
    ),
    # This package: a model of `ssd_vgg16`, to go on from with other classes. Its file tells the
    # rest; last, as others that keep the paper's names for VGG16 are found first.
    Source(
        name=OWN,
        tensors=_names(
            VGG_LAYERS,
            EXTRA_LAYERS,
            _each("{}_offsets", MAP_NAMES),
            _each("{}_logits", MAP_NAMES),
            "conv4_3_norm/kernel",  # what `read_tensors` calls the first variable of a layer
            kernel="/kernel",
            bias="/bias",
        ),
        rgb=False,
        channels_first=False,
        offset_order=(0, 1, 2, 3),
    ),
)
