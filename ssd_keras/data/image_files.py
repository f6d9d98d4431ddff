"""Image files as data sets hold them -> JPEG or PNG bytes that TensorFlow decodes.

Every image is decoded once here, so that a file that cannot be read is found before training.
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
    """A JPEG or PNG file in memory; height and width in pixels."""

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
    """Checks an image file and makes it fit for storing.

    JPEG and PNG files are told by their content, not their name, and kept as found, whatever
    their colours (grey, RGBA, CMYK, 16 bits: `tf.io.decode_image` makes RGB of them). Of other
    formats the first frame is stored as PNG. TensorFlow ignores the EXIF orientation, so an image
    is turned if its annotation tells that it is seen turned; a TIFF always, as Pillow does.

    Args:
        data: The file's content.
        name: Of the image, for the notes.
        notes: Takes what is skipped or changed.
        annotated_size: (height, width) that the annotation gives, if it does. The same shape in
            another scale is accepted: like the original (io.cpp, ReadXMLToAnnotatedDatum) our
            sources divide boxes by the annotated size.
        upright: Turn the image by its EXIF orientation in any case.

    Returns:
        The image, or None (and a note) if it does not decode or has another shape than annotated.
    """
    found, orientation = data, _orientation(data)
    try:
        if not data.startswith((_JPEG, _PNG)):
            picture = Image.open(io.BytesIO(data))
            data = _encode(picture, "PNG")
            notes.adjusted["image stored as PNG"].append(name)
            if picture.format == "TIFF" and orientation > 1:  # Pillow turns those as it loads them
                orientation = 1
                notes.adjusted["image turned by its EXIF orientation"].append(name)
        size = _decoded_size(data)
        if orientation > 1:
            seen_size = size[::-1] if orientation >= 5 else size
            if upright or (annotated_size == seen_size and size != seen_size):
                turned = ImageOps.exif_transpose(Image.open(io.BytesIO(found)))
                data = _encode(turned, "JPEG" if found.startswith(_JPEG) else "PNG")
                size = seen_size
                notes.adjusted["image turned by its EXIF orientation"].append(name)
            else:
                notes.adjusted["EXIF orientation ignored"].append(name)
    except (tf.errors.InvalidArgumentError, Image.DecompressionBombError, OSError, SyntaxError):
        notes.skipped["image does not decode"].append(name)
        return None
    if annotated_size is not None and annotated_size != size:
        ratio = (annotated_size[0] * size[1]) / (annotated_size[1] * size[0])
        if abs(ratio - 1) > _MAX_ASPECT_DIFFERENCE:
            notes.skipped["image of another shape than annotated"].append(name)
            return None
        notes.adjusted["image of another size than annotated"].append(name)
    return EncodedImage(data, *size)


def _decoded_size(data: bytes) -> tuple[int, int]:
    """Decodes as the training graph does: (height, width)."""
    pixels = decode_image(data)
    return int(pixels.shape[0]), int(pixels.shape[1])


def _orientation(data: bytes) -> int:
    """The EXIF orientation, 1 (as stored) to 8; 1 if there is none that can be read."""
    try:
        orientation = Image.open(io.BytesIO(data)).getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def _encode(image: Image.Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    to_rgb(image).save(buffer, image_format, quality=95, subsampling=0)
    return buffer.getvalue()
