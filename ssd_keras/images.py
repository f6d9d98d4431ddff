"""Decoding and resizing of images, the same for data sets, detection and exports.

The size of an image is read from the header of its file and is checked before the image is decoded,
because a file of a few bytes can declare an image that does not fit in memory.
"""

import io
import warnings

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_keras.input_sizes import pair

# Extensions of the image files that data sets and detection read.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

# Formats that Pillow may read. The other formats of Pillow are rare, and its EPS reader starts
# Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")

# Limit for the height times the width of an image. In RGB, such an image takes 300 MB.
MAX_PIXELS = 100_000_000


def decode_image(encoded: tf.Tensor, max_pixels: int | tf.Tensor = MAX_PIXELS) -> tf.Tensor:
    """Decodes a JPEG, PNG or BMP image, or the first frame of a GIF image, to RGB.

    JPEG images are decoded with libjpeg's accurate DCT, as in OpenCV, Pillow and browsers.
    TensorFlow's default DCT is off by one level on average and is not faster.

    Args:
        encoded: string scalar, the bytes of the image file.
        max_pixels: Limit for the height times the width; an int or an integer scalar.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes are not an image in one of these formats, or
            the image has more pixels than `max_pixels`.
    """
    # TensorFlow reads all frames of a GIF file, even to decode only the first one.
    is_gif = _starts_with(encoded, b"GIF8")
    encoded = tf.cond(is_gif, lambda: _first_frame(encoded), lambda: tf.identity(encoded))
    encoded = check_pixels(encoded, max_pixels)
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def check_pixels(encoded: tf.Tensor, max_pixels: int | tf.Tensor = MAX_PIXELS) -> tf.Tensor:
    """Returns an image file unchanged, after a check of the size in its header.

    Args:
        encoded: string scalar, the bytes of a file that `header_size` takes.
        max_pixels: Limit for the height times the width; an int or an integer scalar.

    Raises:
        tf.errors.InvalidArgumentError: If the image has more pixels than `max_pixels`, or its
            header is damaged.
    """
    pixels, limit = tf.reduce_prod(header_size(encoded)), tf.cast(max_pixels, tf.int64)
    message = ["the image has too many pixels:", pixels, "above the limit of", limit]
    check = tf.debugging.Assert(pixels <= limit, message)
    # Without the dependency, a graph could decode the image before the check.
    with tf.control_dependencies([check]):
        return tf.identity(encoded)


def recorded_limit(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the pixel limit for the image of a record, as an int64 scalar.

    The limit is `MAX_PIXELS`, or the size in the record if that is larger, because `prepare` may
    have run with a higher limit.

    Args:
        height: integer scalar, the height in the record.
        width: integer scalar, the width in the record.
    """
    return tf.maximum(tf.cast(height, tf.int64) * tf.cast(width, tf.int64), MAX_PIXELS)


def header_size(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the size of an image from the header of its file, eagerly or in a graph.

    Args:
        encoded: string scalar, the bytes of a JPEG, PNG, BMP or GIF file.

    Returns:
        int64 [2], (height, width) in pixels. For GIF it is the size of the canvas. For any other
        format it is (0, 0).

    Raises:
        tf.errors.InvalidArgumentError: If the header is damaged.
    """

    def jpeg() -> tf.Tensor:
        return tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64)

    def png() -> tf.Tensor:
        return _two_integers(encoded, 16, tf.int32, little_endian=False)

    def bmp() -> tf.Tensor:  # a negative height means that the top row comes first
        return tf.abs(_two_integers(encoded, 18, tf.int32))

    def gif() -> tf.Tensor:
        return _two_integers(encoded, 6, tf.uint16)

    kinds = (
        (tf.io.is_jpeg(encoded), jpeg),
        (_starts_with(encoded, b"\x89PNG"), png),
        (_starts_with(encoded, b"BM"), bmp),
        (_starts_with(encoded, b"GIF8"), gif),
    )
    return tf.case(kinds, default=lambda: tf.zeros([2], tf.int64))


def open_image(data: bytes) -> Image.Image:
    """Opens an image with Pillow. Only its header is read.

    Pillow itself refuses images of more than 179 million pixels.

    Args:
        data: Content of a JPEG, PNG, BMP, GIF, WebP or TIFF file.

    Raises:
        Exception: Of any kind, if the file is damaged or of another format.
    """
    with warnings.catch_warnings():
        # The caller compares the size with a limit of this package.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=_FORMATS)


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


def warp(
    encoded: tf.Tensor, size: int | tuple[int, int], max_pixels: int | tf.Tensor = MAX_PIXELS
) -> tf.Tensor:
    """Decodes an image and resizes it to the input size, for detection and evaluation.

    The resizing is bilinear, without antialiasing, and ignores the aspect ratio.

    Args:
        encoded: string scalar, the bytes of an image file that `decode_image` takes.
        size: Side or (height, width) of the result in pixels: the `image_size` of a config.
        max_pixels: See `decode_image`.

    Returns:
        float32 [height, width, 3], RGB 0..255, not rounded.

    Raises:
        tf.errors.InvalidArgumentError: If the bytes cannot be decoded, or the image is too large.
    """
    return resized(decode_image(encoded, max_pixels), size)


def resized(image: tf.Tensor, size: int | tuple[int, int]) -> tf.Tensor:
    """Resizes a decoded image to the input size; see `warp`.

    Args:
        image: uint8 [H, W, 3], RGB.
        size: Side or (height, width) of the result in pixels.

    Returns:
        float32 [height, width, 3], RGB 0..255, not rounded.
    """
    size = pair(size)
    image = tf.image.resize(image, size, "bilinear", antialias=False)
    return tf.ensure_shape(image, [*size, 3])


def _starts_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, len(start)), start)


def _two_integers(
    encoded: tf.Tensor, start: int, dtype: tf.DType, little_endian: bool = True
) -> tf.Tensor:
    """Returns a width and a height in a header as int64 [2], (height, width)."""
    # Padded with zeros, so that a truncated header gives the size 0.
    header = tf.strings.substr(encoded, 0, 32) + bytes(32)
    both = tf.strings.substr(header, start, 2 * dtype.size)
    both = tf.io.decode_raw(both, dtype, little_endian=little_endian)
    return tf.cast(tf.ensure_shape(both, [2])[::-1], tf.int64)


# A graph function, because an eager loop over thousands of sub-blocks takes a second.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _first_frame(encoded: tf.Tensor) -> tf.Tensor:
    """Returns a GIF file with its first frame only.

    A GIF file has a header, a color table and blocks. A block is an extension (0x21) or a frame
    (0x2C). It ends with sub-blocks. Each sub-block is one byte with its length, followed by that
    many bytes. A length of 0 ends the block. The last byte of the file is the trailer, 0x3B.

    Raises:
        tf.errors.InvalidArgumentError: If there is no frame, or it is larger than the canvas.
    """
    content = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    size = tf.size(content)

    def table_size(flags: tf.Tensor) -> tf.Tensor:
        return tf.where(flags & 128 > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)

    def end_of_block(start: tf.Tensor) -> tf.Tensor:
        """Returns the position after the sub-blocks that begin at `start`, or the file's end."""
        stop = tf.while_loop(
            lambda at: (at < size) & (content[tf.minimum(at, size - 1)] > 0),
            lambda at: [at + 1 + content[at]],
            [start],
        )
        return tf.minimum(stop[0] + 1, size)

    (frame,) = tf.while_loop(
        lambda at: content[at] == 0x21,
        lambda at: [end_of_block(at + 2)],
        [13 + table_size(content[10])],
    )
    sides = content[frame + 5 : frame + 9]  # width and height, little-endian
    wide, high = tf.unstack(sides[::2] + 256 * sides[1::2], num=2)
    height, width = tf.unstack(tf.cast(header_size(encoded), tf.int32))
    fits = (content[frame] == 0x2C) & (wide <= width) & (high <= height)
    check = tf.debugging.Assert(fits, ["the first frame of the GIF file does not fit its canvas"])
    with tf.control_dependencies([check]):
        end = end_of_block(frame + 11 + table_size(content[frame + 9]))
    return tf.strings.substr(encoded, 0, end) + b"\x3b"
