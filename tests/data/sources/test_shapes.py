import io

import numpy as np
import pytest
from PIL import Image

from ssd_keras.data.sources import shapes
from ssd_keras.data.sources.shapes import SHAPE_LABELS, draw_shapes


def pixels(sample):
    return np.asarray(Image.open(io.BytesIO(sample.image))).astype(int)


@pytest.fixture(scope="module")
def samples():
    return list(draw_shapes(120, seed=5))


def test_images_depend_on_the_seed_only(samples):
    again = list(draw_shapes(3, seed=5))
    for a, b in zip(again, samples[:3], strict=True):
        assert a.image == b.image
        np.testing.assert_array_equal(a.boxes, b.boxes)
    other = next(draw_shapes(1, seed=6))
    assert other.image != samples[0].image
    assert {s.image_id for s in samples}.isdisjoint({other.image_id})
    assert len({s.image_id for s in samples}) == 120


def test_every_image_is_as_declared(samples):
    for sample in samples:
        assert pixels(sample).shape == (sample.height, sample.width, 3) == (300, 300, 3)
        assert 1 <= len(sample.labels) <= 8
        assert sample.boxes.shape == (len(sample.labels), 4)
        assert not sample.difficult.any()


def test_all_classes_numbers_and_sizes_occur(samples):
    labels = np.concatenate([s.labels for s in samples])
    assert set(labels) == set(range(1, len(SHAPE_LABELS) + 1))
    assert np.bincount(labels).min(initial=99, where=np.arange(6) > 0) > 40
    assert {len(s.labels) for s in samples} >= {1, 2, 3, 4, 5, 6, 7}
    boxes = np.concatenate([s.boxes for s in samples]) * 300
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert 22 <= sizes.min() < 32
    assert 150 < sizes.max() <= 171


def test_objects_are_inside_and_overlap_little(samples):
    for sample in samples:
        boxes = sample.boxes.astype(float) * 300
        np.testing.assert_allclose(boxes, boxes.round(), atol=1e-4)
        assert boxes.min() >= 0
        assert boxes.max() <= 300
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        for i in range(len(boxes)):
            for j in range(i):
                low = np.maximum(boxes[i, :2], boxes[j, :2])
                high = np.minimum(boxes[i, 2:], boxes[j, 2:])
                overlap = np.prod(np.maximum(high - low, 0)) / min(area[i], area[j])
                assert overlap <= 0.1 + 1e-6


def test_boxes_are_tight_around_the_drawn_pixels(monkeypatch):
    """Without texture, the object is where the image differs from a corner pixel."""

    def flat(rng, color, width, height):
        return Image.new("RGB", (width, height), tuple(int(c) for c in color))

    monkeypatch.setattr(shapes, "_texture", flat)
    monkeypatch.setattr(shapes, "_MAX_OBJECTS", 1)
    for sample in draw_shapes(25, seed=1):
        image = pixels(sample)
        ymin, xmin, ymax, xmax = (sample.boxes[0] * 300).round().astype(int)
        corner = image[-1, -1] if ymin < 100 and xmin < 100 else image[0, 0]
        drawn = np.abs(image - corner).max(axis=-1) > 40  # about half of the smallest contrast
        rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        found = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        np.testing.assert_allclose(found, (ymin, xmin, ymax, xmax), atol=1)


def test_other_image_sizes_and_too_small_ones():
    sample = next(draw_shapes(1, seed=0, image_size=64))
    assert pixels(sample).shape == (64, 64, 3)
    with pytest.raises(ValueError, match=r"`image_size` \(=32\) must be at least 64"):
        next(draw_shapes(1, seed=0, image_size=32))
