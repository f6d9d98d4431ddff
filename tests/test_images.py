"""Sizes from headers, the pixel limit, and the first frame of a GIF file."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.images import (
    MAX_PIXELS,
    _first_frame,
    check_pixels,
    decode_image,
    header_size,
    open_image,
    recorded_limit,
)

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image_format, *frames, **options):
    first, *others = frames or [Image.fromarray(NOISE)]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": others} if others else {}
    first.save(buffer, image_format, **more, **options)
    return buffer.getvalue()


FILES = {
    "JPEG": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "PNG": encoded("PNG"),
    "BMP": encoded("BMP"),
    "GIF": encoded("GIF", comment=b"c" * 1000),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("in_graph", [False, True])
def test_the_limit_is_that_of_the_header(kind, in_graph):
    data = FILES[kind]
    decode = tf.function(decode_image) if in_graph else decode_image
    assert header_size(data).numpy().tolist() == [20, 30]
    assert decode(tf.constant(data), tf.constant(600)).shape == (20, 30, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        decode(tf.constant(data), tf.constant(599))
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
        check_pixels(data, 599)


def test_rows_of_a_bmp_that_go_down():
    data = bytearray(FILES["BMP"])
    data[22:26] = (-20).to_bytes(4, "little", signed=True)
    assert header_size(bytes(data)).numpy().tolist() == [20, 30]


def test_other_bytes_have_no_size():
    for data in (b"", b"x", b"RIFF" + bytes(40)):
        assert header_size(data).numpy().tolist() == [0, 0]


def test_the_limit_of_a_record():
    assert int(recorded_limit(tf.constant(10), tf.constant(10))) == MAX_PIXELS
    assert int(recorded_limit(tf.constant(60_000), tf.constant(60_000))) == 3_600_000_000


def test_a_gif_is_cut_after_its_first_frame():
    frames = [Image.fromarray(NOISE).rotate(90 * k).quantize() for k in range(4)]
    animation = encoded("GIF", *frames, comment=b"c" * 700, loop=0)
    single = _first_frame(animation).numpy()
    assert len(single) < len(animation) / 2
    assert Image.open(io.BytesIO(single)).n_frames == 1
    expected = tf.io.decode_gif(animation)[0]
    np.testing.assert_array_equal(decode_image(animation), expected)
    np.testing.assert_array_equal(_first_frame(FILES["GIF"]), FILES["GIF"])


def test_a_gif_whose_frame_exceeds_its_canvas_or_that_has_none():
    data = bytearray(FILES["GIF"])
    data[6:8] = (29).to_bytes(2, "little")
    start = data.index(b"\x2c", 13)
    for content in (bytes(data), FILES["GIF"][:13], b"GIF89a", bytes(data[:start])):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_image(content)


def test_pillow_reads_no_other_formats():
    """Pillow's reader of EPS files starts another program."""
    with pytest.raises(OSError, match="cannot identify"):
        open_image(encoded("PPM"))
    assert open_image(FILES["GIF"]).size == (30, 20)
