"""The augmentation ops, and `augment`, which applies them to a sample.

An op changes a `View`: the boxes and the parameters of the image. `render` then computes the pixels
once. The order of the original is distort, expand, crop, resize, mirror
(`src/caffe/layers/annotated_data_layer.cpp`). Distortion is pointwise, so it commutes with the
crop. Therefore only the visible part of the image is decoded and distorted, with the same result.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from ssd_keras.augmentation.crop import (
    choose_crop,
    crop_boxes,
    crop_window,
    draw_candidates,
    draw_expansion,
)
from ssd_keras.augmentation.distortion import draw_distortion
from ssd_keras.augmentation.resampling import INTERPOLATIONS
from ssd_keras.augmentation.view import View, complete, render, whole_image
from ssd_keras.config_files import ConfigLike, as_config

# An augmentation op: a function that takes a view and a seed, int [2], and returns a new view.
Op = Callable[[View, tf.Tensor], View]


def random_distort(view: View, seed: tf.Tensor) -> View:
    """Draws the parameters of the photometric distortion."""
    return dataclasses.replace(view, distortion=draw_distortion(seed))


def random_expand(view: View, seed: tf.Tensor) -> View:
    """Places the image on a canvas of up to 4 times its height and width ("zoom out")."""
    canvas, offset = draw_expansion(seed, view.image_size)
    size, corner = (tf.cast(tf.tile(x, [2]), tf.float32) for x in (view.image_size, offset))
    boxes = (view.boxes * size + corner) / tf.cast(tf.tile(canvas, [2]), tf.float32)
    window = tf.concat([[0, 0], canvas], 0)
    return dataclasses.replace(view, boxes=boxes, canvas=canvas, offset=offset, window=window)


def random_crop(view: View, seed: tf.Tensor) -> View:
    """Crops the view with one of the seven samplers, and drops objects with a center outside it."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    candidates = draw_candidates(seeds[0])
    u = tf.random.stateless_uniform([], seeds[1])
    crop, sampler = choose_crop(candidates, view.boxes, u)
    boxes, inside = crop_boxes(view.boxes, crop)
    return dataclasses.replace(
        view,
        boxes=boxes,
        keep=view.keep & inside,
        crop=crop,
        window=crop_window(crop, view.canvas),
        sampler=sampler,
    )


def random_interpolation(view: View, seed: tf.Tensor) -> View:
    """Draws the interpolation of the resizing. Without this op it is linear."""
    index = tf.random.stateless_uniform([], seed, 0, len(INTERPOLATIONS), tf.int32)
    return dataclasses.replace(view, interpolation=index)


def fast_warp(view: View, seed: tf.Tensor) -> View:
    """Makes the resizing linear and faster. Use it instead of `random_interpolation`.

    The image is resized before the distortion, and its edges are moved to whole pixels.
    BUILD_NOTES.md (decision 75) has the measured difference.
    """
    del seed
    return dataclasses.replace(view, fast=True)


def random_mirror(view: View, seed: tf.Tensor) -> View:
    """Mirrors the image horizontally with probability 0.5."""
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

# The attributes of `View` that `augment` returns as "params".
DRAWN = ("canvas", "offset", "crop", "window", "sampler", "interpolation", "mirror", "distortion")

# `render` always applies these ops in this order.
_GEOMETRY = (random_expand, random_crop, random_mirror)

AUGMENTATIONS = {
    "ssd": SSD_OPS,  # the paper's SSD300* and SSD512*
    "ssd_no_expand": SSD_NO_EXPAND_OPS,  # the paper's first tables
    "ssd_fast": SSD_FAST_OPS,
    "flip_only": FLIP_ONLY_OPS,
    "none": NO_OPS,
}


def augment(
    sample: Mapping[str, Any],
    config: ConfigLike,
    seed: tf.Tensor,
    ops: tuple[Op, ...] = SSD_OPS,
) -> dict[str, Any]:
    """Augments one sample for training.

    The result depends on the arguments alone, eagerly and in a graph.

    Args:
        sample: A dictionary: `image`, string scalar of JPEG or PNG bytes, or decoded pixels
            [H, W, 3] or [H, W, 1] of any dtype, 0..255; `boxes`, float32 [G, 4], normalized `yxyx`;
            `labels`, int32 [G]; optionally `difficult`, bool [G], and `height` and `width`, int32
            scalars in pixels. Without height and width, encoded images are decoded twice.
        config: Its `image_size` is the size of the result, and its `mean` is the color of an
            expanded canvas.
        seed: int [2].
        ops: A tuple of ops of this module or of custom ops. Expansion, crop and mirror may each
            occur once and must be in this order.

    Returns:
        A dictionary: `image`, float32 [height, width, 3], RGB 0..255; `boxes`, float32 [G', 4],
        normalized `yxyx` with ymin < ymax and xmin < xmax; `labels`, int32 [G']; `difficult`, bool
        [G']; `params`, a dictionary of the drawn parameters: the attributes of `View` in `DRAWN`.

    Raises:
        ValueError: If expansion, crop or mirror occurs twice, or they have another order, or the
            image has another shape.
        tf.errors.InvalidArgumentError: If the image cannot be decoded.

    Source: section 2.2, "Data augmentation"; `annotated_data_layer.cpp`.
    """
    config, sample = as_config(config), complete(sample)
    view = decide(sample, seed, ops)
    with tf.name_scope("render"):
        image = render(sample["image"], view, config.image_size, config.mean)
    return {"image": image, **visible_objects(sample, view), "params": drawn(view)}


def decide(sample: dict[str, tf.Tensor], seed: tf.Tensor, ops: tuple[Op, ...]) -> View:
    """Applies the ops to the boxes of a sample, without reading its pixels.

    Args:
        sample: As in `augment`; `image` may be missing.
        seed: int [2].
        ops: As in `augment`.

    Returns:
        The view of the sample.

    Raises:
        ValueError: If expansion, crop or mirror occurs twice, or they have another order.
    """
    geometry = [op for op in ops if op in _GEOMETRY]
    for one, other in itertools.pairwise(geometry):
        if _GEOMETRY.index(one) >= _GEOMETRY.index(other):
            raise ValueError(
                f"ops have {other.__name__} after {one.__name__}: each of "
                f"{', '.join(op.__name__ for op in _GEOMETRY)} may occur once, in this order"
            )
    view = whole_image(sample)
    seeds = tf.random.experimental.stateless_split(seed, max(len(ops), 1))
    for i, op in enumerate(ops):
        with tf.name_scope(op.__name__):
            view = op(view, seeds[i])
    return view


def drawn(view: View) -> dict[str, Any]:
    """Returns the drawn parameters of a view by name: those in `DRAWN` that are not None."""
    return {name: getattr(view, name) for name in DRAWN if getattr(view, name) is not None}


def visible_objects(sample: dict[str, tf.Tensor], view: View) -> dict[str, tf.Tensor]:
    """Returns the ground truth that is visible in a view.

    Args:
        sample: As in `augment`; `image` may be missing.
        view: A view of the sample.

    Returns:
        `boxes`, float32 [G', 4], normalized `yxyx`, clipped to the view and with an area above 0;
        `labels`, int32 [G']; `difficult`, bool [G'].
    """
    boxes = tf.clip_by_value(view.boxes, 0.0, 1.0)
    keep = view.keep & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=-1)
    kept = tf.where(keep)[:, 0]
    labels, difficult = tf.gather(sample["labels"], kept), tf.gather(sample["difficult"], kept)
    return {"boxes": tf.gather(boxes, kept), "labels": labels, "difficult": difficult}
