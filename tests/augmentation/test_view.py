import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras.augmentation import view
from ssd_keras.augmentation.ops import augment
from ssd_keras.config import SSD300_VOC
from tests.draws import BOXES, encode, sample


@pytest.mark.parametrize(
    ("image_format", "options"),
    [("JPEG", {"subsampling": k}) for k in (0, 1, 2)] + [("PNG", {})],
    ids=["JPEG 4:4:4", "JPEG 4:2:2", "JPEG 4:2:0", "PNG"],
)
def test_decoding_a_window_is_decoding_and_slicing(image_format, options):
    noise = np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)
    encoded = encode(noise, image_format, **options)
    whole = np.array(Image.open(io.BytesIO(encoded)))  # Pillow's JPEG decoder is libjpeg too
    windows = [(0, 0, 75, 100), (11, 23, 40, 61), (11, 23, 41, 62), (74, 99, 1, 1)]
    # At the edges of blocks of 8 or 16 pixels, the decoder does not see the neighboring pixels.
    windows += [(top, left, 20, 17) for top in (0, 7, 16, 32) for left in (1, 8, 16, 32, 48, 83)]
    decode = tf.function(view.decode_window)
    for top, left, height, width in windows:
        part = decode(tf.constant(encoded), tf.constant([top, left, height, width])).numpy()
        expected = whole[top : top + height, left : left + width]
        np.testing.assert_array_equal(part, expected, str((top, left, height, width)))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("corner", [(0, 0), (0, 60), (60, 0), (60, 200), (90, 30)])
def test_a_window_outside_the_image_is_all_fill(fast, corner):
    """The image is in the middle of the canvas. The windows are around the image or touch it."""
    seen = view.whole_image(sample())  # 75 x 100
    seen = dataclasses.replace(
        seen,
        canvas=tf.constant([225, 300]),
        offset=tf.constant([30, 100]),
        window=tf.constant([*corner, 30 if corner[0] == 0 else 60, 40]),
        fast=fast,
    )
    if corner == (90, 30):
        seen = dataclasses.replace(seen, window=tf.constant([105, 100, 50, 100]))
    image = view.render(sample()["image"], seen, 64, (123.675, 116.28, 103.53))
    np.testing.assert_array_equal(image, np.broadcast_to([124, 116, 104], (64, 64, 3)))


def test_gray_images_and_single_pixels():
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 77).save(buffer, "JPEG")
    one = {**sample(boxes=BOXES[:1]), "image": tf.constant(buffer.getvalue())}
    one |= {"height": tf.constant(1), "width": tf.constant(1)}
    for k in range(5):
        result = augment(one, SSD300_VOC, [0, k])
        assert result["image"].shape == (300, 300, 3)
        assert np.isfinite(result["image"]).all()
