"""Converts the image files of datasets to JPEG or PNG files that TensorFlow decodes.

Every image is decoded once here, so damaged files are found before training.
"""

import dataclasses
import io
import re

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from ssd_keras.data.card import Notes
from ssd_keras.images import MAX_PIXELS, decode_image, header_size, open_image, to_rgb

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SOF2, _SOS = 0xC2, 0xDA  # markers of JPEG: a progressive frame, a scan
_ORIENTATION_TAG = 0x0112
_MAX_ASPECT_DIFFERENCE = 0.02

UNDECODABLE = "image does not decode"  # a reason in the notes


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A JPEG or PNG file in memory.

    Attributes:
        data: Content of the file.
        height: Height in pixels.
        width: Width in pixels.
        pixels: uint8 [height, width, 3] RGB, or None; see `keep_pixels` of `load_image`.
    """

    data: bytes
    height: int
    width: int
    pixels: np.ndarray | None = None


def load_image(
    data: bytes,
    name: str,
    notes: Notes,
    *,
    annotated_size: tuple[int, int] | None = None,
    upright: bool = False,
    max_pixels: int = MAX_PIXELS,
    keep_pixels: bool = False,
) -> EncodedImage | None:
    """Decodes an image file once, and converts it if TensorFlow cannot read it.

    JPEG and PNG files are recognized by their content, not by their name, and are stored unchanged.
    Gray, RGBA, CMYK and 16-bit images stay as they are, since `tf.io.decode_image` converts them to
    RGB. The first frame of a BMP, GIF, WebP or TIFF file is stored as PNG. A progressive JPEG file
    that lacks scans counts as damaged.

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
        max_pixels: Limit for the height times the width. It is compared with the header, before
            anything is decoded.
        keep_pixels: Whether the result has the decoded pixels. If the image was rotated, they are
            the pixels before the rotation.

    Returns:
        The image, or None if it does not decode, if it is too large, or if its aspect ratio differs
        from the annotation.

    Source:
        io.cpp (ReadXMLToAnnotatedDatum), which divides boxes by the annotated size.
    """
    original, too_large = data, f"image has more than {max_pixels} pixels"
    try:
        if _num_pixels(data) > max_pixels:
            notes.skipped[too_large].append(name)
            return None
        orientation = _orientation(data)
        if not data.startswith((_JPEG, _PNG)):
            picture = open_image(data)
            data = _encode(picture, "PNG")
            notes.adjusted["image stored as PNG"].append(name)
            if picture.format == "TIFF" and orientation > 1:  # Pillow has rotated it already
                orientation = 1
                notes.adjusted["image rotated by its EXIF orientation"].append(name)
        pixels = _decode(data, max_pixels)
        size = (int(pixels.shape[0]), int(pixels.shape[1]))
        if orientation > 1:
            rotated_size = size[::-1] if orientation >= 5 else size  # 5 to 8 swap the sides
            if upright or (annotated_size == rotated_size and size != rotated_size):
                rotated = ImageOps.exif_transpose(open_image(original))
                data = _encode(rotated, "JPEG" if original.startswith(_JPEG) else "PNG")
                size = rotated_size
                notes.adjusted["image rotated by its EXIF orientation"].append(name)
            else:
                notes.adjusted["EXIF orientation ignored"].append(name)
    except Image.DecompressionBombError:  # above Pillow's own limit of 179 million
        notes.skipped[too_large].append(name)
        return None
    except Exception:  # damaged files make the decoders raise many kinds of exception
        notes.skipped[UNDECODABLE].append(name)
        return None
    if annotated_size is not None and annotated_size != size:
        ratio = (annotated_size[0] * size[1]) / (annotated_size[1] * size[0])
        if abs(ratio - 1) > _MAX_ASPECT_DIFFERENCE:
            notes.skipped["image shape differs from annotation"].append(name)
            return None
        notes.adjusted["image size differs from annotation"].append(name)
    return EncodedImage(data, *size, pixels.numpy() if keep_pixels else None)


# As graphs, because the eager operations of one image take longer than its decoding, and hold
# Python's lock.
_SCALAR = tf.TensorSpec([], tf.string)
_header_size = tf.function(header_size, input_signature=[_SCALAR])
_decode_image = tf.function(decode_image, input_signature=[_SCALAR, tf.TensorSpec([], tf.int64)])


def _num_pixels(data: bytes) -> int:
    """Returns the height times the width in the header of an image file."""
    if data.startswith((_JPEG, _PNG)):
        height, width = _header_size(data).numpy().tolist()
    else:
        width, height = open_image(data).size
    return int(height * width)


def _decode(data: bytes, max_pixels: int) -> tf.Tensor:
    """Decodes an image as the training graph does: uint8 [H, W, 3].

    Raises:
        Exception: Of any kind, if the image does not decode.
        ValueError: If it is a progressive JPEG file that lacks scans. The decoder then invents
            details, which differ between the whole image and the parts that training decodes.
    """
    if data.startswith(_JPEG) and _lacks_scans(data):
        raise ValueError("scans are missing")
    return _decode_image(data, max_pixels)


def _lacks_scans(data: bytes) -> bool:
    """Returns whether a progressive JPEG file lacks low frequencies, or their last bits.

    libjpeg smooths such images. It checks the lowest frequencies of each component.

    Source:
        ITU-T T.81, sections B.2.2 and B.2.3; libjpeg-turbo, jdcoefct.c (`smoothing_ok`).
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1] != _SOF2:
        if data[at + 1] == _SOS:
            return False  # not progressive
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    components = {data[at + 10 + 3 * k] for k in range(data[at + 9])} if data[at:] else set()
    missing = {(component, k) for component in components for k in range(10)}
    # In the data of a scan, 0xFF is followed by 0 or by a restart marker.
    for scan in re.finditer(b"\xff\xda", data[at:]):
        number = data[at + scan.end() + 2]
        listed, last = at + scan.end() + 3, at + scan.end() + 3 + 2 * number
        first_frequency, last_frequency, bits = data[last : last + 3]
        if bits & 15 == 0:
            found = range(first_frequency, last_frequency + 1)
            missing -= {(data[listed + 2 * j], k) for j in range(number) for k in found}
    return bool(missing)


def _orientation(data: bytes) -> int:
    """Returns the EXIF orientation, 1 (upright) to 8. It is 1 if the tag is missing or invalid."""
    try:
        orientation = open_image(data).getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged tags make Pillow raise many kinds of exception
        return 1
    return orientation if orientation in range(1, 9) else 1


def _encode(image: Image.Image, image_format: str) -> bytes:
    """Encodes an image in RGB. A JPEG has quality 95 and no chroma subsampling."""
    buffer = io.BytesIO()
    to_rgb(image).save(buffer, image_format, quality=95, subsampling=0)
    return buffer.getvalue()
