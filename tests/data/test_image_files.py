import io
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.augmentation.view import decode_window
from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.images import decode_image

RAMP = np.stack(np.broadcast_arrays(np.arange(60) * 4, np.arange(40)[:, None] * 6, 100), axis=-1)
PICTURE = Image.fromarray(RAMP.astype(np.uint8))  # 40 high, 60 wide


def encoded(image_format, image=PICTURE, **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def decoded(image):
    return decode_image(image.data).numpy()


def test_jpegs_are_decoded_as_other_programs_do():
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=75)
    expected = np.asarray(Image.open(buffer))
    by_default = tf.io.decode_jpeg(buffer.getvalue()).numpy()
    assert (by_default != expected).any()
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), expected)
    np.testing.assert_array_equal(
        tf.function(decode_image)(tf.constant(buffer.getvalue())), expected
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_are_kept_as_found(mode):
    notes = Notes()
    data = encoded("JPEG", PICTURE.convert(mode), quality=95)
    image = load_image(data, "a", notes)
    assert (image.data, image.height, image.width) == (data, 40, 60)
    expected = np.asarray(PICTURE.convert(mode).convert("RGB")).astype(int)
    assert np.abs(decoded(image) - expected).max() < 12
    assert not notes.skipped
    assert not notes.adjusted


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "16 bit"])
def test_pngs_are_kept_as_found(mode):
    if mode == "16 bit":
        data = encoded("PNG", Image.fromarray((RAMP[..., 0] * 257).astype(np.uint16)))
        expected = np.repeat(RAMP[..., :1], 3, axis=-1)
    else:
        data = encoded("PNG", PICTURE.convert(mode))
        expected = np.asarray(PICTURE.convert(mode).convert("RGB"))
    image = load_image(data, "a", Notes())
    assert image.data == data
    np.testing.assert_array_equal(decoded(image), expected)


@pytest.mark.parametrize("image_format", ["BMP", "GIF", "WEBP", "TIFF"])
def test_other_formats_are_stored_as_png(image_format):
    notes = Notes()
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = load_image(encoded(image_format, **options), "a", notes)
    assert image.data.startswith(b"\x89PNG")
    tolerance = 60 if image_format == "GIF" else 0  # GIF has a palette
    np.testing.assert_allclose(decoded(image), RAMP, atol=tolerance)
    assert notes.adjusted == {"image stored as PNG": ["a"]}


def test_the_first_frame_of_an_animation_is_stored():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(load_image(data, "a", Notes()))[0, 0], [255, 0, 0])


@pytest.mark.parametrize("size", [(1, 1), (8000, 2), (8000, 6000)])
def test_extreme_sizes(size):
    image = load_image(encoded("JPEG", Image.new("RGB", size)), "a", Notes())
    assert (image.width, image.height) == size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        encoded("JPEG")[:-20],
        encoded("PNG")[:-20],
        encoded("BMP")[:-20],
        encoded("JPEG")[:4],
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG", "cut BMP", "JPEG header"],
)
def test_what_does_not_decode_is_skipped_by_name(data):
    notes = Notes()
    assert load_image(data, "a", notes) is None
    assert notes.skipped == {"image does not decode": ["a"]}


def test_annotated_size():
    notes = Notes()
    data = encoded("JPEG")
    assert load_image(data, "same", notes, annotated_size=(40, 60)).height == 40
    assert load_image(data, "half", notes, annotated_size=(20, 30)).height == 40
    assert load_image(data, "rotated", notes, annotated_size=(60, 40)) is None
    assert load_image(data, "1 %", notes, annotated_size=(400, 606)).height == 40
    assert load_image(data, "3 %", notes, annotated_size=(400, 618)) is None
    assert notes.adjusted == {"image size differs from annotation": ["half", "1 %"]}
    assert notes.skipped == {"image shape differs from annotation": ["rotated", "3 %"]}


def test_orientation_is_ignored_unless_the_annotation_tells_that_the_image_is_seen_turned():
    notes = Notes()
    data = encoded("JPEG", exif=exif(6), quality=95)  # 60 high and 40 wide after rotation
    assert load_image(data, "stored", notes, annotated_size=(40, 60)).data == data
    assert load_image(data, "unknown", notes).data == data
    rotated = load_image(data, "rotated", notes, annotated_size=(60, 40))
    assert (rotated.height, rotated.width) == (60, 40)
    np.testing.assert_allclose(decoded(rotated), np.rot90(RAMP, -1), atol=12)
    assert load_image(data, "upright", notes, upright=True).height == 60
    assert notes.adjusted == {
        "EXIF orientation ignored": ["stored", "unknown"],
        "image rotated by its EXIF orientation": ["rotated", "upright"],
    }
    assert not notes.skipped


def test_16_bits_are_scaled_and_numbers_without_range_refused():
    """Pillow's conversion makes all levels above 255 white."""
    gray = Image.fromarray((RAMP[..., 0] * 257.0).astype(np.uint16))
    image = load_image(encoded("TIFF", gray), "a", Notes())
    np.testing.assert_array_equal(decoded(image), np.repeat(RAMP[..., :1], 3, axis=-1))
    rotated = load_image(encoded("PNG", gray, exif=exif(3)), "a", Notes(), upright=True)
    np.testing.assert_array_equal(decoded(rotated)[..., 0], RAMP[::-1, ::-1, 0])
    notes = Notes()
    assert load_image(encoded("TIFF", Image.new("F", (4, 4))), "b", notes) is None
    assert notes.skipped == {"image does not decode": ["b"]}


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_turned_too(image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(image_format, exif=exif(6), **options)
    notes = Notes()
    rotated = load_image(data, "a", notes, upright=True)
    np.testing.assert_array_equal(decoded(rotated), np.rot90(RAMP, -1))
    assert (rotated.height, rotated.width) == (60, 40)
    assert notes.adjusted["image rotated by its EXIF orientation"] == ["a"]
    assert load_image(data, "b", notes, annotated_size=(60, 40)).height == 60
    stored = load_image(data, "c", notes, annotated_size=(40, 60))
    if image_format == "TIFF":  # Pillow has rotated it
        assert stored is None
    else:
        np.testing.assert_array_equal(decoded(stored), RAMP)


def test_a_rotated_image_is_not_rotated_twice():
    once = load_image(encoded("JPEG", exif=exif(3)), "a", Notes(), upright=True)
    assert load_image(once.data, "a", Notes(), upright=True).data == once.data


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF"])
def test_the_pixel_limit_leaves_out_by_name(image_format):
    notes = Notes()
    data = encoded(image_format)
    assert load_image(data, "fits", notes, max_pixels=2400).height == 40
    assert load_image(data, "large", notes, max_pixels=2399) is None
    assert notes.skipped == {"image has more than 2399 pixels": ["large"]}


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "GIF", "PNG", "WEBP", "JPEG"])
def test_whatever_a_decoder_raises_leaves_out_one_image(image_format):
    """For a palette of wrong size or a tag of wrong type, Pillow raises many kinds of errors."""
    data = encoded(image_format, PICTURE.convert("P") if image_format != "JPEG" else PICTURE)
    rng = np.random.default_rng(0)
    skipped = 0
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 1200), 3):
            damaged[at] = rng.integers(256)
        notes = Notes()
        image = load_image(bytes(damaged), "a", notes, max_pixels=10_000_000)
        assert (image is None) == bool(notes.skipped)
        skipped += image is None
    assert skipped


def test_a_damaged_palette():
    data = bytearray(encoded("BMP", PICTURE.convert("P")))
    data[46:50] = (77).to_bytes(4, "little")  # the number of colors
    data[10:14] = (54 + 4 * 77 - 2).to_bytes(4, "little")  # the start of the pixels
    notes = Notes()
    load_image(bytes(data), "a", notes)
    assert set(notes.skipped) <= {"image does not decode"}


def test_a_progressive_jpeg_without_all_scans_is_left_out():
    """libjpeg smooths such images, so the pixels of a part differ from those of the whole."""
    coarse = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((300, 200), Image.Resampling.BICUBIC)
    whole = encoded("JPEG", picture, progressive=True)
    scans = [match.start() for match in re.finditer(b"\xff\xda", whole)]
    window = tf.constant([37, 53, 90, 120])
    cut = whole[: scans[2]] + b"\xff\xd9"
    part = decode_image(cut)[37:127, 53:173]
    assert np.any(decode_window(tf.constant(cut), window) != part)
    for k, scan in enumerate(scans):
        notes = Notes()
        assert load_image(whole[:scan] + b"\xff\xd9", str(k), notes) is None
    notes = Notes()
    assert load_image(whole, "whole", notes).data == whole
    np.testing.assert_array_equal(
        decode_window(tf.constant(whole), window), decode_image(whole)[37:127, 53:173]
    )
    for mode in ("L", "CMYK"):
        data = encoded("JPEG", PICTURE.convert(mode), progressive=True)
        assert load_image(data, mode, notes).data == data
