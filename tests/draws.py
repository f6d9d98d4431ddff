"""Creates a sample and many random augmentations of it, and tests distributions."""

import functools
import io

import numpy as np
import tensorflow as tf
from PIL import Image

from ssd_keras.augmentation.ops import (
    augment,
    decide,
    drawn,
    random_distort,
    random_expand,
    random_interpolation,
    random_mirror,
    visible_objects,
)
from tests.tiny import TINY

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.4, 0.5, 0.9, 0.95], [0.0, 0.0, 0.1, 0.12]], np.float32)
MEAN = (123.0, 117.0, 104.0)
ALL_BUT_CROP = (random_distort, random_expand, random_interpolation, random_mirror)
HEIGHT, WIDTH = 750, 1000  # size of the image of `views`, which is not decoded


def picture(height=75, width=100, seed=0, gray=False):
    """Returns smooth noise, which a shift by one pixel changes only slightly."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return np.repeat(image[..., :1], 3, -1) if gray else image


def encode(image, image_format="PNG", **options):
    """Content of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, image_format, **options)
    return buffer.getvalue()


def sample(image=None, boxes=BOXES, image_format="PNG"):
    """A sample as `parse_example` returns it, with labels 1, 2, ..."""
    image = picture() if image is None else image
    return {
        "image": tf.constant(encode(image, image_format)),
        "boxes": tf.constant(boxes, tf.float32, [len(boxes), 4]),
        "labels": tf.range(1, len(boxes) + 1),
        "difficult": tf.zeros([len(boxes)], tf.bool),
        "height": tf.constant(image.shape[0]),
        "width": tf.constant(image.shape[1]),
    }


@functools.cache
def draws(ops, count=40, image_format="PNG"):
    """Results of `augment` with `count` seeds, from a `tf.data` graph, as NumPy arrays."""
    fixed = sample(image_format=image_format)
    dataset = tf.data.Dataset.range(count).map(
        lambda k: augment(fixed, TINY, tf.stack([tf.constant(7, tf.int64), k]), ops)
    )
    return list(dataset.as_numpy_iterator())


@functools.cache
def views(ops, count=1500, boxes=None):
    """As `draws`, but fast, without pixels: the random parameters and the remaining objects."""

    def plan(k):
        seen = decide(fixed, tf.stack([tf.constant(7, tf.int64), k]), ops)
        return drawn(seen) | visible_objects(fixed, seen)

    fixed = sample(boxes=BOXES if boxes is None else np.reshape(boxes, [-1, 4]))
    fixed |= {"height": tf.constant(HEIGHT), "width": tf.constant(WIDTH)}
    return list(tf.data.Dataset.range(count).map(plan).as_numpy_iterator())


def assert_share(hits, probability):
    """Checks that the share of True is within 4 standard deviations of the expected share."""
    deviation = np.sqrt(probability * (1 - probability) / len(hits))
    assert abs(np.mean(hits) - probability) < 4 * deviation


def assert_same_distribution(values, others):
    """Two-sided Kolmogorov-Smirnov test of two samples; false alarms are about 1 in 10,000."""
    points = np.sort(np.concatenate([values, others]))
    shares = (np.searchsorted(np.sort(x), points, "right") / len(x) for x in (values, others))
    distance = np.max(np.abs(np.subtract(*shares)))
    assert distance < 2.23 * np.sqrt(1 / len(values) + 1 / len(others))


def assert_uniform(values, low, high):
    """Two-sided Kolmogorov-Smirnov test and the bounds; false alarms are about 1 in 10,000."""
    values = np.sort((np.asarray(values) - low) / (high - low))
    assert values[0] >= -1e-5
    assert values[-1] <= 1 + 1e-5
    ranks = np.arange(len(values) + 1) / len(values)
    distance = max(np.max(ranks[1:] - values), np.max(values - ranks[:-1]))
    assert distance < 2.23 / np.sqrt(len(values))
