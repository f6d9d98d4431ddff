import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssd_keras import view
from ssd_keras.augment import augment
from ssd_keras.config import SSD300_VOC
from tests.draws import BOXES, encode, picture, sample


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "window", [(0, 0, 75, 100), (11, 23, 40, 61), (11, 23, 41, 62), (74, 99, 1, 1)]
)
def test_decoding_a_window_is_decoding_and_slicing(image_format, window):
    encoded = encode(picture(), image_format)
    top, left, height, width = window
    whole = np.array(Image.open(io.BytesIO(encoded))).astype(int)
    part = view.decode(tf.constant(encoded), tf.constant(window)).numpy()
    expected = whole[top : top + height, left : left + width]
    np.testing.assert_array_equal(part, expected)  # Pillow's JPEG decoder is libjpeg too


def test_grey_images_and_single_pixels():
    buffer = io.BytesIO()
    Image.new("L", (1, 1), 77).save(buffer, "JPEG")
    one = {**sample(boxes=BOXES[:1]), "image": tf.constant(buffer.getvalue())}
    one |= {"height": tf.constant(1), "width": tf.constant(1)}
    for k in range(5):
        result = augment(one, SSD300_VOC, [0, k])
        assert result["image"].shape == (300, 300, 3)
        assert np.isfinite(result["image"]).all()
