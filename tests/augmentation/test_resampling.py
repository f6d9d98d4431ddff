import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.augmentation.ops import NO_OPS, augment
from ssd_keras.augmentation.resampling import INTERPOLATIONS, axis_maps, resample
from tests.draws import MEAN, picture, sample
from tests.reference import augmentation as reference
from tests.tiny import TINY


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(75, 100), (40, 50), (50, 110), (64, 64), (7, 300)])
def test_warp_is_opencv_resize(shape, interpolation):
    image = picture(*shape, seed=1) if min(shape) >= 8 else picture(56, 304)[:7, :300]
    window = tf.constant([0, 0, *shape])
    index = tf.constant(INTERPOLATIONS.index(interpolation))
    maps = axis_maps(window, tf.zeros([2], tf.int32), window, tf.constant(False), index, (60, 60))
    planes = tf.unstack(tf.cast(image, tf.float32), axis=-1)
    result = resample(planes, *maps, (60, 60), MEAN).numpy().astype(int)
    expected = reference.resize(image, 60, interpolation).astype(int)
    assert np.abs(result - expected).max() <= 1
    assert np.mean(result != expected) < 0.02  # rounding ties


def test_linear_warp_is_tensorflows_resize():
    image = picture(150, 220)
    result = augment(sample(image), TINY, [0, 0], NO_OPS)["image"]
    expected = tf.image.resize(image, [64, 64], "bilinear", antialias=False)
    np.testing.assert_allclose(result, expected, atol=0.501)
