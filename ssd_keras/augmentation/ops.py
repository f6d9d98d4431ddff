"""The augmentation: each op decides from the boxes what is seen, then the pixels are made once.

The original's order is distort, expand, crop, warp, mirror (Caffe branch ssd,
`src/caffe/layers/annotated_data_layer.cpp`). Distortion works on single pixels, so it commutes with
the crop: only the part of the image that stays is decoded and distorted. The result is the same.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ssd_keras.augmentation import crop as samplers
from ssd_keras.augmentation.distortion import draw_distortion
from ssd_keras.augmentation.resampling import INTERPOLATIONS
from ssd_keras.augmentation.view import View, render, whole_image
from ssd_keras.config import SSDConfig

Op = Callable[[View, Any], View]


def random_distort(view: View, seed: Any) -> View:
    """Photometric distortion of the image's pixels."""
    return dataclasses.replace(view, distortion=draw_distortion(seed))


def random_expand(view: View, seed: Any) -> View:
    """Puts the image on a canvas of up to 4 times its sides ("zoom out")."""
    canvas, offset = samplers.draw_expansion(seed, view.image_size)
    size, corner = (tf.cast(tf.tile(x, [2]), tf.float32) for x in (view.image_size, offset))
    boxes = (view.boxes * size + corner) / tf.cast(tf.tile(canvas, [2]), tf.float32)
    window = tf.concat([[0, 0], canvas], 0)
    return dataclasses.replace(view, boxes=boxes, canvas=canvas, offset=offset, window=window)


def random_crop(view: View, seed: Any) -> View:
    """Crops by one of the seven samplers that succeeded; drops objects whose centre is outside."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    candidates = samplers.draw_candidates(seeds[0])
    u = tf.random.stateless_uniform([], seeds[1])
    crop, sampler = samplers.choose_crop(candidates, view.boxes, u)
    boxes, inside = samplers.crop_boxes(view.boxes, crop)
    return dataclasses.replace(
        view,
        boxes=boxes,
        keep=view.keep & inside,
        crop=crop,
        window=samplers.crop_window(crop, view.canvas),
        sampler=sampler,
    )


def random_interpolation(view: View, seed: Any) -> View:
    """Draws how the warp interpolates; without this op it is linear."""
    index = tf.random.stateless_uniform([], seed, 0, len(INTERPOLATIONS), tf.int32)
    return dataclasses.replace(view, interpolation=index)


def fast_warp(view: View, seed: Any) -> View:
    """Instead of `random_interpolation`: a quick linear warp that comes before the distortion.

    The image's edges fall on whole pixels. BUILD_NOTES.md has the difference, measured.
    """
    del seed
    return dataclasses.replace(view, fast=True)


def random_mirror(view: View, seed: Any) -> View:
    """Mirrors left and right with probability 0.5."""
    mirror = tf.random.stateless_uniform([], seed) < 0.5
    ymin, xmin, ymax, xmax = tf.unstack(view.boxes, axis=-1)
    mirrored = tf.stack([ymin, 1 - xmax, ymax, 1 - xmin], axis=-1)
    return dataclasses.replace(view, mirror=mirror, boxes=tf.where(mirror, mirrored, view.boxes))


SSD_OPS: tuple[Op, ...] = (
    random_distort,
    random_expand,
    random_crop,
    random_interpolation,
    random_mirror,
)
SSD_NO_EXPAND_OPS: tuple[Op, ...] = (
    random_distort,
    random_crop,
    random_interpolation,
    random_mirror,
)
SSD_FAST_OPS: tuple[Op, ...] = (
    random_distort,
    random_expand,
    random_crop,
    fast_warp,
    random_mirror,
)
FLIP_ONLY_OPS: tuple[Op, ...] = (random_mirror,)
NO_OPS: tuple[Op, ...] = ()

# What `augment` tells of its draws.
DRAWN = ("canvas", "offset", "crop", "window", "sampler", "interpolation", "mirror", "distortion")

# Pixels are made in this order, whatever the order of the ops.
_GEOMETRY = (random_expand, random_crop, random_mirror)

AUGMENTATIONS = {
    "ssd": SSD_OPS,  # the paper's SSD300* and SSD512*
    "ssd_no_expand": SSD_NO_EXPAND_OPS,  # the paper's first tables
    "ssd_fast": SSD_FAST_OPS,
    "flip_only": FLIP_ONLY_OPS,
    "none": NO_OPS,
}


def augment(
    sample: dict[str, Any], config: SSDConfig, seed: Any, ops: tuple[Op, ...] = SSD_OPS
) -> dict[str, Any]:
    """Makes one training sample; a pure function of its arguments, in a graph or eagerly.

    Args:
        sample: What `records.parse_example` returns: "image" encoded JPEG or PNG, "height" and
            "width" int32 pixels, "boxes" float32 [G, 4], "labels" int32 [G], "difficult" bool [G].
        config: Gives S, the side of the picture, and the mean that fills an expansion.
        seed: int [2].
        ops: One of the tuples of this module, or your own, in which expansion, crop and mirror
            must keep that order.

    Returns:
        "image" float32 [S, S, 3] RGB 0..255, "boxes" float32 [G', 4] yxyx with ymin < ymax and
        xmin < xmax, "labels" int32 [G'], "difficult" bool [G'], and "params", a dict of what was
        drawn: the attributes of `View` named in `DRAWN`.

    Raises:
        ValueError: If expansion, crop and mirror repeat or stand in another order.
    """
    view = decide(sample, seed, ops)
    with tf.name_scope("render"):
        image = render(sample["image"], view, config.image_size, config.mean)
    return {"image": image, **ground_truth(sample, view), "params": drawn(view)}


def decide(sample: dict[str, Any], seed: Any, ops: tuple[Op, ...]) -> View:
    """Draws what will be seen of a sample, without its pixels; arguments as of `augment`."""
    geometry = [op for op in ops if op in _GEOMETRY]
    for one, other in itertools.pairwise(geometry):
        if _GEOMETRY.index(one) >= _GEOMETRY.index(other):
            raise ValueError(
                f"ops have {other.__name__} after {one.__name__}: each of "
                f"{', '.join(op.__name__ for op in _GEOMETRY)} may stand once, in this order"
            )
    view = whole_image(sample)
    seeds = tf.random.experimental.stateless_split(seed, max(len(ops), 1))
    for i, op in enumerate(ops):
        with tf.name_scope(op.__name__):
            view = op(view, seeds[i])
    return view


def drawn(view: View) -> dict[str, Any]:
    """What was drawn, by the name of the attribute; without a distortion if there was none."""
    return {name: getattr(view, name) for name in DRAWN if getattr(view, name) is not None}


def ground_truth(sample: dict[str, Any], view: View) -> dict[str, Any]:
    """The ground truth that is left: boxes clipped to the view, with an area."""
    boxes = tf.clip_by_value(view.boxes, 0.0, 1.0)
    keep = view.keep & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=-1)
    kept = tf.where(keep)[:, 0]
    labels, difficult = tf.gather(sample["labels"], kept), tf.gather(sample["difficult"], kept)
    return {"boxes": tf.gather(boxes, kept), "labels": labels, "difficult": difficult}
