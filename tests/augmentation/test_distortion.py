import numpy as np
import tensorflow as tf

from ssd_keras.augmentation import distortion
from tests.draws import ALL_BUT_CROP, assert_share, assert_uniform, picture, views
from tests.reference import augmentation as reference


def test_hsv_is_opencvs_8_bit_hsv():
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128]]])
    h, s, v = distortion.rgb_to_hsv8(tuple(tf.unstack(tf.cast(pure, tf.float32), axis=-1)))
    np.testing.assert_array_equal(h[0], [0, 60, 120, 30, 0])
    np.testing.assert_array_equal(s[0], [255, 255, 255, 255, 0])
    np.testing.assert_array_equal(v[0], [255, 255, 255, 255, 128])

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    planes = tuple(tf.unstack(tf.cast(image, tf.float32), axis=-1))
    hsv = tf.stack(distortion.rgb_to_hsv8(planes), axis=-1).numpy()
    expected = reference.rgb_to_hsv8(image)
    assert np.mean(hsv != expected) < 0.02  # ties in the fixed-point tables
    assert np.abs(hsv - expected).max() <= 1
    expected[..., 0] = np.arange(40 * 50).reshape(40, 50) % 198  # hue wraps at 180
    back = distortion.hsv8_to_rgb(tuple(tf.unstack(tf.cast(expected, tf.float32), axis=-1)))
    np.testing.assert_allclose(tf.stack(back, -1), reference.hsv8_to_rgb(expected), atol=1)


def test_hue_saturates_below_zero_and_wraps_above():
    orange, pink = [255.0, 64.0, 0.0], [255.0, 0.0, 64.0]  # H 8 and 172
    planes = tuple(tf.constant([[orange[c], pink[c]]]) for c in range(3))
    lower = tf.stack(distortion.adjust_hue(planes, -18.0), axis=-1).numpy()[0]
    upper = tf.stack(distortion.adjust_hue(planes, 18.0), axis=-1).numpy()[0]
    np.testing.assert_array_equal(lower[0], [255, 0, 0])  # 8 - 18 stops at 0, red
    np.testing.assert_array_equal(upper[1], [255, 85, 0])  # 172 + 18 = 190 is 10, orange


def test_distortion_draws():
    drawn = [r["distortion"] for r in views(ALL_BUT_CROP)]
    d = distortion.Distortion(*(np.array(values) for values in zip(*drawn, strict=True)))
    assert_share(d.contrast_first, 0.5)
    for which in range(4):
        assert_share(d.applied[:, which], 0.5)
    assert_share(d.applied.all(axis=1), 1 / 16)  # the ops are applied independently
    assert_uniform(d.brightness, -32, 32)
    assert_uniform(d.contrast, 0.5, 1.5)
    assert_uniform(d.saturation, 0.5, 1.5)
    assert_uniform(d.hue, -18, 18)


def test_an_op_not_applied_changes_nothing_and_gray_stays_gray():
    image = picture(gray=True)
    planes = tuple(tf.unstack(tf.cast(image, tf.float32), axis=-1))
    amounts = {"brightness": 20.0, "contrast": 1.3, "saturation": 1.5, "hue": 10.0}
    nothing = distortion.Distortion(tf.constant(True), tf.constant([False] * 4), **amounts)
    np.testing.assert_array_equal(distortion.distort(planes, nothing), planes)
    in_hsv = distortion.Distortion(
        tf.constant(True), tf.constant([False, False, True, True]), **amounts
    )
    np.testing.assert_array_equal(distortion.distort(planes, in_hsv), planes)
