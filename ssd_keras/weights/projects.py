"""Projects whose weights can be imported, with the conventions of each.

The conventions were read from the code of the projects. The comment above each `Project` names the
repository and the files.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from ssd_keras.config import MAP_NAMES
from ssd_keras.vgg16 import CONVOLUTIONS
from ssd_keras.weights.naming import (
    EXTRA_LAYERS,
    MORE_HEADS,
    OWN,
    VGG_LAYERS,
    Project,
    each,
    layer_names,
)


def find_project(tensors: Iterable[str], name: str | None = None) -> Project:
    """Finds the project whose naming a file follows.

    Args:
        tensors: Names of the tensors in the file.
        name: Name of the project, or None to detect it.

    Returns:
        The project with the given name. Without a name, the project that knows the largest number
        of the tensors; of several such projects, the first in `PROJECTS`.

    Raises:
        ValueError: If no project has the name, or no project knows any of the tensors.
    """
    if name is not None:
        for project in PROJECTS:
            if project.name == name:
                return project
        raise ValueError(
            f"weights_project (={name}) must be one of {', '.join(p.name for p in PROJECTS)}"
        )
    names = set(tensors)
    best = max(PROJECTS, key=lambda project: len(names & project.tensors.keys()))
    if not names & best.tensors.keys():
        raise ValueError(
            f"its tensors ({', '.join(sorted(names)[:4])} ...) match no known project: it must be "
            "a VGG16 or a VGG16-SSD"
        )
    return best


# Indices of VGG16's convolutions, fc6 and fc7 in a torch.nn.Sequential.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)
_PAIRS = tuple(f"{i}.{j}" for i in range(5) for j in range(2))
_CAFFE_EXTRAS = tuple(f"conv{block}_{i}" for block in range(6, 11) for i in (1, 2))
_CAFFE_MAPS = ("conv4_3_norm", "fc7", *_CAFFE_EXTRAS[1::2])


def _check_torchvision(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    if any(name.startswith("backbone.extra.5.") for name in tensors):
        raise ValueError(
            "torchvision's network for 512 pixels (highres) has last feature maps of 8, 6, 4 and 1 "
            "cells, but those of SSD512 have 8, 4, 2 and 1: its weights fit torchvision only"
        )
    return ()


def _check_torchvision_vgg16(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    classifier = tensors.get("classifier.0.weight")
    if classifier is not None and np.isfinite(classifier).all():
        raise ValueError(
            "torchvision's VGG16 for classification needs images scaled to a standard deviation of "
            "1, but this network does not scale them: use vgg16_features-amdegroot-88682ab5.pth "
            "(IMAGENET1K_FEATURES)"
        )
    return ("images: 0..255 minus the mean assumed, as for IMAGENET1K_FEATURES",)


def _check_mmdetection(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    version = tensors.get("meta.mmdet_version")
    if version is None:
        return ("mmdetection 2.0 or later assumed; 1.x has the background first",)
    if version[0] < 2:
        raise ValueError(
            f"it was written by mmdetection {'.'.join(map(str, version))}. Versions 1.x have the "
            "background first, round default boxes and make boxes one pixel wider. The upgrade "
            "script changes only the background: use a model of mmdetection 2.0 or later"
        )
    return ()


def _check_amdegroot(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return (
        "images: RGB assumed, as for ssd300_mAP_77.43_v2.pth; ssd_300_VOC0712.pth holds Caffe's "
        "weights, for BGR: give weights_project amdegroot_caffe for it",
    )


_BOX_CLIP = "DIFFERENCE: {} clips boxes to the image before suppression, this package after it"
_MMDETECTION_DIFFERENCES = (
    _BOX_CLIP.format("mmdetection"),
    "DIFFERENCE: mmdetection limits the height and width of a box to between 1/62.5 and 62.5 times "
    "those of the default box (wh_ratio_clip)",
)


_AMDEGROOT = layer_names(
    each("vgg.{}", _PLACES),
    each("extras.{}", range(10)),
    each("loc.{}", range(7)),
    each("conf.{}", range(7)),
    "L2Norm.weight",
)


def _check_pierluigi(tensors: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    if any(name.startswith("pool6_mbox_") for name in tensors):
        raise ValueError(
            "rykov8/ssd_keras wrote it (weights_SSD300.hdf5, which early versions of "
            "oarriaga/SSD-keras load): its network has 7308 default boxes and a pooling layer "
            "instead of the last feature map, as in the first version of the paper; use a file of "
            "another project, such as VGG_VOC0712_SSD_300x300_iter_120000.caffemodel"
        )
    return ()


def _balancap(scope: str, blocks: range) -> dict[str, str]:
    """Returns the tensor names of balancap's checkpoints; `blocks` has the extra layers."""
    boxes = [f"{scope}/block{b}_box" for b in (4, 7, *blocks)]
    kernels = [(b, kernel) for b in blocks for kernel in ("1x1", "4x4" if b == 12 else "3x3")]
    return layer_names(
        each(f"{scope}/{{}}", (*(f"{name[:5]}/{name}" for name in CONVOLUTIONS), "conv6", "conv7")),
        [f"{scope}/block{b}/conv{kernel}" for b, kernel in kernels],
        [f"{box}/conv_loc" for box in boxes],
        [f"{box}/conv_cls" for box in boxes],
        f"{scope}/block4_box/L2Normalization/gamma",
        kernel="/weights",
        bias="/biases",
    )


PROJECTS = (
    # keras.applications.vgg16
    Project(
        name="keras_vgg16",
        tensors=layer_names(
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
    Project(
        name="torchvision",
        tensors=layer_names(
            [
                *each("backbone.features.{}", _PLACES[:10]),
                *each("backbone.extra.0.{}", ("1", "3", "5", "7.1", "7.3")),
            ],
            each("backbone.extra.{}", (f"{i}.{j}" for i in range(1, 5) for j in (0, 2))),
            each("head.regression_head.module_list.{}", range(6)),
            each("head.classification_head.module_list.{}", range(6)),
            "backbone.scale_weight",
        ),
        tilings=((91, "COCO"), (None, "COCO")),
        clamped_sizes=True,
        differences=(
            _BOX_CLIP.format("torchvision"),
            "DIFFERENCE: torchvision limits the height and width of a box to 62.5 times those of "
            "the default box (bbox_xform_clip)",
        ),
        check=_check_torchvision,
    ),
    # pytorch/vision: vgg16_features-amdegroot-88682ab5.pth, the backbone for training its SSD
    Project(
        name="torchvision_vgg16",
        tensors=layer_names(each("features.{}", _PLACES[:13])),
        rgb=None,
        check=_check_torchvision_vgg16,
    ),
    # amdegroot/ssd.pytorch 5b0b77f: ssd.py, data/config.py, layers/functions/prior_box.py
    Project(
        name="amdegroot",
        tensors=_AMDEGROOT,
        tilings=((21, "VOC"), (81, "COCO"), (None, "COCO")),
        clamped_sizes=True,
        clamped_centers=True,
        check=_check_amdegroot,
    ),
    # amdegroot/ssd.pytorch: ssd_300_VOC0712.pth, Caffe's SSD300 with the names of amdegroot. The
    # channel order and default boxes are those of Caffe.
    Project(name="amdegroot_caffe", tensors=_AMDEGROOT, rgb=False),
    # amdegroot/ssd.pytorch: vgg16_reducedfc.pth, the backbone for training its and lufficc's SSDs
    Project(name="amdegroot_vgg16", tensors=layer_names(each("{}", _PLACES)), rgb=None),
    # lufficc/SSD: ssd/modeling, ssd/config/defaults.py
    Project(
        name="lufficc",
        tensors=layer_names(
            each("backbone.vgg.{}", _PLACES),
            each("backbone.extras.{}", range(10)),
            each("box_head.predictor.reg_headers.{}", range(7)),
            each("box_head.predictor.cls_headers.{}", range(7)),
            "backbone.l2_norm.weight",
        ),
        clamped_sizes=True,
        clamped_centers=True,
    ),
    # open-mmlab/mmdetection from 2.14: ssd_neck.py, ssd_head.py, anchor_generator.py
    Project(
        name="mmdetection",
        tensors=layer_names(
            each("backbone.features.{}", _PLACES),
            each("neck.extra_layers.{}.conv", _PAIRS),
            each("bbox_head.reg_convs.{}.0", range(7)),
            each("bbox_head.cls_convs.{}.0", range(7)),
            "neck.l2_norm.weight",
        ),
        mean=(123.675, 116.28, 103.53),
        background_last=True,
        integer_sizes=True,
        differences=_MMDETECTION_DIFFERENCES,
        check=_check_mmdetection,
    ),
    # open-mmlab/mmdetection 2.0 to 2.13: tools/model_converters/upgrade_ssd_version.py
    Project(
        name="mmdetection_old",
        tensors=layer_names(
            each("backbone.features.{}", _PLACES),
            each("backbone.extra.{}", range(10)),
            each("bbox_head.reg_convs.{}", range(7)),
            each("bbox_head.cls_convs.{}", range(7)),
            "backbone.l2_norm.weight",
        ),
        mean=(123.675, 116.28, 103.53),
        background_last=True,
        integer_sizes=True,
        differences=_MMDETECTION_DIFFERENCES,
        check=_check_mmdetection,
    ),
    # weiliu89/caffe 4817bf8: python/caffe/model_libs.py, examples/ssd/ssd_{pascal,coco}.py
    Project(
        name="caffe",
        tensors=layer_names(
            VGG_LAYERS,
            _CAFFE_EXTRAS,
            each("{}_mbox_loc", _CAFFE_MAPS),
            each("{}_mbox_conf", _CAFFE_MAPS),
            "conv4_3_norm/0",
            kernel="/0",
            bias="/1",
        ),
        rgb=False,
        integer_sizes=True,
    ),
    # pierluigiferrari/ssd_keras 3ac9ada: models/keras_ssd300.py, keras_ssd512.py
    Project(
        name="pierluigi",
        tensors=layer_names(
            VGG_LAYERS,
            _CAFFE_EXTRAS,
            each("{}_mbox_loc", _CAFFE_MAPS),
            each("{}_mbox_conf", _CAFFE_MAPS),
            "conv4_3_norm/conv4_3_norm_gamma",
            kernel="/kernel",
            bias="/bias",
        ),
        rgb=False,
        channels_first=False,
        tilings=((21, "VOC"), (81, "COCO"), (201, "VOC")),  # 201: SSD300 for ILSVRC
        both_tilings=(21,),  # its COCO[1], 07+12+COCO and 07++12+COCO files have COCO's tiling
        check=_check_pierluigi,
    ),
    # oarriaga/SSD-keras 7b490ed: src/models/SSD300.py, ssd_utils.py, pytorch2keras.py. Keras
    # numbers unnamed layers. Weights and channel order are those of Caffe (ssd_300_VOC0712.pth).
    Project(
        name="oarriaga",
        tensors=layer_names(
            each("{}", (*(f"conv2d_{i}" for i in range(1, 15)), "branch_2")),
            each("{}", (n for i in range(4) for n in (f"conv2d_{15 + i}", f"branch_{3 + i}"))),
            each("regression_leaf_{}", range(6)),
            each("classification_leaf_{}", range(6)),
            "branch_1/branch_1_gamma",
            kernel="/kernel",
            bias="/bias",
        ),
        rgb=False,
        channels_first=False,
        differences=(
            "DIFFERENCE: oarriaga's code clips centers and sizes of default boxes to the image, "
            "unlike the original that the weights come from",
        ),
    ),
    # balancap/SSD-Tensorflow e0e3104: nets/ssd_vgg_300.py, ssd_vgg_512.py, ssd_common.py,
    # caffe_to_tensorflow.py. TensorFlow 1 checkpoints, converted from Caffe's files.
    Project(
        name="balancap",
        tensors={
            **_balancap("ssd_300_vgg", range(8, 12)),
            **_balancap("ssd_512_vgg", range(8, 13)),
        },
        channels_first=False,
        tilings=((21, "COCO"), (81, "COCO"), (None, "COCO")),
        both_tilings=(21,),  # a file trained on VOC alone has VOC's tiling; the code has COCO's
    ),
    # chainer/chainercv: links/model/ssd/ssd_vgg16.py, multibox_coder.py, examples/ssd/caffe2npz.py
    Project(
        name="chainercv",
        tensors=layer_names(
            each("extractor/{}", (*CONVOLUTIONS, "conv6", "conv7")),
            each("extractor/{}", EXTRA_LAYERS),
            each("multibox/loc/{}", range(7)),
            each("multibox/conf/{}", range(7)),
            "extractor/norm4/scale",
            kernel="/W",
            bias="/b",
        ),
        offset_order=(0, 1, 2, 3),
    ),
    # This package: a model of `ssd_vgg16`, for fine-tuning with other classes. `load_weights` reads
    # its mean, tiling and class names from the `.keras` file. It is the last entry, because a VGG16
    # file with the same names must be read as pierluigi's, which needs none of these values.
    Project(
        name=OWN,
        tensors={
            **layer_names(
                VGG_LAYERS,
                EXTRA_LAYERS,
                each("{}_offsets", MAP_NAMES),
                each("{}_logits", MAP_NAMES),
                "conv4_3_norm/kernel",  # `read_tensors` so names the first variable of a layer
                kernel="/kernel",
                bias="/bias",
            ),
            **MORE_HEADS,
        },
        rgb=False,
        channels_first=False,
        offset_order=(0, 1, 2, 3),
    ),
)
