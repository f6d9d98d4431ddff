"""Converts the image files of datasets to JPEG or PNG files that TensorFlow decodes.

Every image is decoded once here, so damaged files are found before training.
"""

import dataclasses
import io
import struct

import tensorflow as tf
from PIL import Image, ImageOps

from ssd_keras.data.card import Notes
from ssd_keras.images import decode_image, to_rgb

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_MAX_ASPECT_DIFFERENCE = 0.02


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A JPEG or PNG file in memory.

    Attributes:
        data: Content of the file.
        height: Height in pixels.
        width: Width in pixels.
    """

    data: bytes
    height: int
    width: int


def load_image(
    data: bytes,
    name: str,
    notes: Notes,
    *,
    annotated_size: tuple[int, int] | None = None,
    upright: bool = False,
) -> EncodedImage | None:
    """Decodes an image file once, and converts it where TensorFlow could not read it.

    JPEG and PNG files are recognized by their content, not by their name, and are stored unchanged.
    Gray, RGBA, CMYK and 16-bit images stay as they are, since `tf.io.decode_image` converts them to
    RGB. The first frame of any other format is stored as PNG.

    TensorFlow ignores the EXIF orientation. An image is therefore rotated before it is stored if
    only its rotated size equals the annotated size. A TIFF is always rotated, since Pillow does so
    when it loads the file.

    Args:
        data: Content of the file.
        name: Name of the image, for the notes.
        notes: Receives the name if the image is skipped or changed.
        annotated_size: (height, width) in pixels from the annotation, or None. An image of another
            size is accepted if its aspect ratio agrees within 2 %, because boxes are divided by the
            annotated size.
        upright: Whether to rotate the image by its EXIF orientation in all cases.

    Returns:
        The image, or None if it does not decode or if its aspect ratio differs from the annotation.

    Source:
        io.cpp (ReadXMLToAnnotatedDatum), which divides boxes by the annotated size.
    """
    original, orientation = data, _orientation(data)
    try:
        if not data.startswith((_JPEG, _PNG)):
            picture = Image.open(io.BytesIO(data))
            data = _encode(picture, "PNG")
            notes.adjusted["image stored as PNG"].append(name)
            if picture.format == "TIFF" and orientation > 1:  # Pillow has rotated it already
                orientation = 1
                notes.adjusted["image rotated by its EXIF orientation"].append(name)
        size = _decoded_size(data)
        if orientation > 1:
            rotated_size = size[::-1] if orientation >= 5 else size  # 5 to 8 swap the sides
            if upright or (annotated_size == rotated_size and size != rotated_size):
                rotated = ImageOps.exif_transpose(Image.open(io.BytesIO(original)))
                data = _encode(rotated, "JPEG" if original.startswith(_JPEG) else "PNG")
                size = rotated_size
                notes.adjusted["image rotated by its EXIF orientation"].append(name)
            else:
                notes.adjusted["EXIF orientation ignored"].append(name)
    except (tf.errors.InvalidArgumentError, Image.DecompressionBombError, OSError, SyntaxError):
        notes.skipped["image does not decode"].append(name)
        return None
    if annotated_size is not None and annotated_size != size:
        ratio = (annotated_size[0] * size[1]) / (annotated_size[1] * size[0])
        if abs(ratio - 1) > _MAX_ASPECT_DIFFERENCE:
            notes.skipped["image shape differs from annotation"].append(name)
            return None
        notes.adjusted["image size differs from annotation"].append(name)
    return EncodedImage(data, *size)


def _decoded_size(data: bytes) -> tuple[int, int]:
    """Decodes an image as the training graph does, and returns (height, width)."""
    pixels = decode_image(data)
    return int(pixels.shape[0]), int(pixels.shape[1])


def _orientation(data: bytes) -> int:
    """Returns the EXIF orientation, 1 (upright) to 8. It is 1 if the tag is missing or invalid."""
    try:
        orientation = Image.open(io.BytesIO(data)).getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _encode(image: Image.Image, image_format: str) -> bytes:
    """Encodes an image in RGB. A JPEG has quality 95 and no chroma subsampling."""
    buffer = io.BytesIO()
    to_rgb(image).save(buffer, image_format, quality=95, subsampling=0)
    return buffer.getvalue()
