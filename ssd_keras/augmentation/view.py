"""A view: what will be seen of an image, decided before a pixel is decoded; and its pixels."""

import dataclasses
from typing import Any

import tensorflow as tf

from ssd_keras import images
from ssd_keras.augmentation.distortion import Distortion, distort
from ssd_keras.augmentation.resampling import LINEAR, axis_maps, resample


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What will be seen of an image: the ground truth so far, and every parameter drawn.

    Attributes:
        boxes: float32 [G, 4] yxyx, relative to the view.
        keep: bool [G], which of them stay.
        image_size: int32 [2] (height, width), pixels.
        canvas: int32 [2] (height, width), the image after expansion.
        offset: int32 [2] (y, x), the image's corner on the canvas.
        crop: float32 [4] yxyx, the crop as drawn, relative to the canvas.
        window: int32 [4] (top, left, height, width), the crop in whole canvas pixels.
        sampler: int32, which sampler made the crop, 0 (the whole canvas) to 6.
        interpolation: int32, an index of `INTERPOLATIONS`.
        mirror: bool.
        distortion: The photometric parameters, or None.
        fast: Warp first, linearly and to whole pixels; distort what comes out.
    """

    boxes: Any
    keep: Any
    image_size: Any
    canvas: Any
    offset: Any
    crop: Any
    window: Any
    sampler: Any
    interpolation: Any
    mirror: Any
    distortion: Distortion | None = None
    fast: bool = False


def whole_image(sample: dict[str, Any]) -> View:
    """The view of a parsed sample (`records.parse_example`) that is not augmented."""
    size = tf.stack([sample["height"], sample["width"]])
    return View(
        boxes=sample["boxes"],
        keep=tf.ones_like(sample["difficult"]),
        image_size=size,
        canvas=size,
        offset=tf.zeros([2], tf.int32),
        crop=tf.constant([0.0, 0.0, 1.0, 1.0]),
        window=tf.concat([[0, 0], size], 0),
        sampler=tf.constant(0),
        interpolation=tf.constant(LINEAR),
        mirror=tf.constant(False),
    )


def render(encoded: Any, view: View, size: int, mean: tuple[float, ...]) -> Any:
    """Makes the pixels of a view: float32 [S, S, 3] RGB, whole numbers 0..255."""
    top_left = view.window[:2] - view.offset
    # At least one pixel is decoded, even if only fill is seen.
    first = tf.clip_by_value(top_left, 0, view.image_size - 1)
    last = tf.clip_by_value(top_left + view.window[2:], first + 1, view.image_size)
    visible = tf.concat([first, last - first], 0)
    pixels = decode_window(encoded, visible)
    mean = tuple(float(round(level)) for level in mean)  # as pixels are
    if view.fast:
        image = _render_fast(pixels, view, first - top_left, last - top_left, size, mean)
    else:
        planes = _distort(tf.cast(pixels, tf.float32), view)
        maps = axis_maps(view.window, view.offset, visible, view.mirror, view.interpolation, size)
        image = resample(planes, *maps, size, mean)
    return tf.cast(image, tf.float32)


def _render_fast(
    pixels: Any, view: View, first: Any, last: Any, size: int, mean: tuple[float, ...]
) -> Any:
    """Warps the visible pixels, which span `first` to `last` in the window; distorts; fills."""
    seen = tf.reduce_all((first < view.window[2:]) & (last > 0))  # not only fill
    edges = tf.cast(tf.stack([first, last]), tf.float32)  # [2, 2]: first and last, y and x
    edges *= size / tf.cast(view.window[2:], tf.float32)
    first, last = tf.unstack(tf.cast(tf.round(edges), tf.int32))
    first = tf.clip_by_value(first, 0, size - 1)
    last = tf.clip_by_value(last, first + 1, size)
    planes = _distort(tf.round(tf.image.resize(pixels, last - first)), view)
    margins = tf.stack([first, size - last], axis=1)
    r, g, b = (
        tf.pad(tf.where(seen, plane, level), margins, constant_values=level)
        for plane, level in zip(planes, mean, strict=True)
    )
    # Three bytes of one integer: twice as fast as tf.stack(axis=-1).
    image = tf.cast(r + 256.0 * g + 65536.0 * b, tf.int32)
    image = tf.cond(view.mirror, lambda: image[:, ::-1], lambda: image)
    return tf.ensure_shape(tf.bitcast(image, tf.uint8)[..., :3], [size, size, 3])


def _distort(pixels: Any, view: View) -> Any:
    planes = tuple(tf.unstack(pixels, axis=-1))
    return planes if view.distortion is None else distort(planes, view.distortion)


def decode_window(encoded: Any, window: Any) -> Any:
    """Decodes the part `window` int32 [4] (top, left, height, width) of a JPEG or PNG to RGB.

    Bit for bit what decoding the whole image (with libjpeg's accurate DCT) and slicing gives.
    """
    top, left, height, width = tf.unstack(window)

    def jpeg() -> Any:
        # One more column on either side: the outermost ones lack the colour of their neighbours.
        extra = tf.minimum(left, 1)
        right = tf.minimum(left + width + 1, tf.io.extract_jpeg_shape(encoded)[1])
        wider = tf.stack([top, left - extra, height, right - left + extra])
        image = tf.image.decode_and_crop_jpeg(
            encoded, wider, channels=3, dct_method="INTEGER_ACCURATE"
        )
        return image[:, extra : extra + width]

    def other() -> Any:
        return images.decode_image(encoded)[top : top + height, left : left + width]

    image = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
    return tf.ensure_shape(image, [None, None, 3])
