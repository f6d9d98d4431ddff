"""Decoding and resizing of images, the same for data sets, detection and exports."""

import numpy as np
import tensorflow as tf
from PIL import Image

# Extensions of the image files that data sets and detection read.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG or BMP image, or the first frame of a GIF image, to RGB.

    JPEG images are decoded with libjpeg's accurate DCT, as in OpenCV, Pillow and browsers.
    TensorFlow's default DCT is off by one level on average and is not faster.

    Args:
        encoded: string scalar, the bytes of the image file.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not an image in one of these formats.
    """
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a Pillow image to RGB. 16-bit levels are scaled to 8 bits.

    `Image.convert("RGB")` would clip 16-bit levels at 255 instead.

    Args:
        image: Image of any mode except I and F.

    Returns:
        Image of mode RGB and the same size.

    Raises:
        OSError: If the mode is I or F, whose range of values is unknown.
    """
    if image.mode in ("I", "F"):
        raise OSError(f"mode {image.mode} has no known range of values")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def warp(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes an image and resizes it to a square, as for detection and evaluation.

    The resizing is bilinear, without antialiasing, and ignores the aspect ratio.

    Args:
        encoded: string scalar, the bytes of an image file that `decode_image` takes.
        size: S, the side of the result in pixels.

    Returns:
        float32 [S, S, 3], RGB 0..255, not rounded.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes cannot be decoded.
    """
    image = tf.image.resize(decode_image(encoded), [size, size], "bilinear", antialias=False)
    return tf.ensure_shape(image, [size, size, 3])
