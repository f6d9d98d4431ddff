"""Image files as data sets hold them -> JPEG or PNG bytes that TensorFlow decodes; their pixels.

Every image is decoded once here, so that a file that cannot be read is found before training.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def decode_image(encoded: Any) -> Any:
    """Decodes a JPEG, PNG, BMP or GIF (first frame) to RGB, uint8 [H, W, 3].

    A JPEG as OpenCV, Pillow and browsers do: TensorFlow's own choice is libjpeg's rougher DCT, off
    by a grey level on average, and not faster.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are no such image.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def to_rgb(image: Image.Image) -> Image.Image:
    """As `Image.convert("RGB")`, but 16 bits are scaled to 8, which Pillow cuts off at 255.

    Raises:
        OSError: If the image holds numbers of unknown range (modes I and F).
    """
    if image.mode in ("I", "F"):
        raise OSError(f"mode {image.mode} has no known range")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def warp(encoded: Any, size: int) -> Any:
    """Decodes a JPEG or PNG and resizes it to float32 [S, S, 3], as detection does (bilinear)."""
    image = tf.image.resize(decode_image(encoded), [size, size], "bilinear", antialias=False)
    return tf.ensure_shape(image, [size, size, 3])
