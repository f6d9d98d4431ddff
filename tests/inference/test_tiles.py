import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.inference.detector import Detector
from ssd_keras.inference.tiles import Tiles, merge_tiles, parse_tiles, tiled_detector


def test_parse():
    assert parse_tiles("2x3") == Tiles(rows=2, columns=3)
    assert parse_tiles("640", 0.5) == Tiles(side=640, overlap=0.5)
    for text in ("", "2x", "0", "2x0", "x2", "2x2x2", "-3"):
        with pytest.raises(ValueError, match=r"tiles .* must be rows x columns, such as 2x2"):
            parse_tiles(text)
    with pytest.raises(ValueError, match=r"overlap \(=1\) must be in \[0, 0.9\]"):
        parse_tiles("2x2", 1)


def test_tiles_by_hand():
    # two tiles of 100 / (2 - 0.2) = 56 pixels
    assert Tiles(rows=1, columns=2).boxes(30, 100) == [(0, 0, 30, 56), (0, 44, 30, 100)]
    # side 40, step 32: at 0, 30 and 60 of 100
    assert [box[1::2] for box in Tiles(side=40).boxes(10, 100)] == [(0, 40), (30, 70), (60, 100)]
    assert Tiles(side=500).boxes(10, 20) == [(0, 0, 10, 20)]
    assert Tiles(rows=4, columns=4).boxes(1, 2)[0] == (0, 0, 1, 1)


@pytest.mark.parametrize("tiles", [Tiles(side=64, overlap=0.25), Tiles(3, 5, overlap=0.3)])
@pytest.mark.parametrize("size", [(64, 64), (100, 333), (517, 65)])
def test_tiles_cover_every_pixel_and_overlap(tiles, size):
    covered = np.zeros(size, int)
    for y0, x0, y1, x1 in tiles.boxes(*size):
        assert 0 <= y0 < y1 <= size[0]
        assert 0 <= x0 < x1 <= size[1]
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1


def test_merging_by_hand():
    boxes = np.array(
        [
            [0, 0, 10, 10],  # whole
            [0, 0, 10, 6],  # cut, inside the first box, with a higher score
            [0, 1, 10, 11],  # IoU 9 / 11 with the first box
            [0, 0, 10, 10],  # another class
            [50, 50, 60, 60],  # cut, alone
            [2, 2, 5, 5],  # whole, inside the first box: another object
        ],
        float,
    )
    scores = np.array([0.8, 0.9, 0.7, 0.6, 0.5, 0.4])
    classes = np.array([1, 1, 1, 2, 1, 1])
    cut = np.array([False, True, False, False, True, False])
    assert merge_tiles(boxes, scores, classes, cut).tolist() == [0, 3, 4, 5]
    assert merge_tiles(boxes, scores, classes, cut, max_detections=2).tolist() == [0, 3]
    assert merge_tiles(boxes[:0], scores[:0], classes[:0], cut[:0]).tolist() == []


def bright(images):
    """Finds the box of the bright pixels, if its sides are at least a tenth of the image's."""
    found = []
    for image in images:
        ys, xs = np.nonzero(image[..., 0] > 128)
        large = len(ys) and min(np.ptp(ys) + 1, np.ptp(xs) + 1) * 10 >= min(image.shape[:2])
        box = [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1] if large else []
        boxes = np.float32(box).reshape(-1, 4) / np.float32([*image.shape[:2]] * 2)
        found.append(
            {
                "boxes": boxes,
                "scores": np.full(len(boxes), 0.9, np.float32),
                "classes": np.ones(len(boxes), np.int32),
            }
        )
    return found


def test_small_objects_are_found_at_their_place():
    image = np.zeros((400, 400, 3), np.uint8)
    image[310:340, 30:60] = 255  # 30 pixels: 0.075 of the image, 0.135 of a tile of 222
    detector = Detector(("cat",), None, None, bright)
    assert len(detector.detect_pixels([image])[0]["boxes"]) == 0
    (found,) = tiled_detector(detector, Tiles(2, 2)).detect_pixels([image])
    np.testing.assert_allclose(found["boxes"] * 400, [[310, 30, 340, 60]], atol=1e-3)


def test_an_object_over_a_border_is_found_once():
    image = np.zeros((400, 400, 3), np.uint8)
    image[150:250, 100:300] = 255  # larger than the overlap of the tiles
    (found,) = tiled_detector(Detector(("cat",), None, None, bright), Tiles(2, 2)).detect_pixels(
        [image]
    )
    np.testing.assert_allclose(found["boxes"] * 400, [[150, 100, 250, 300]], atol=1e-3)


def test_encoded_images_and_images_without_detections():
    image = np.zeros((400, 300, 3), np.uint8)
    image[310:340, 30:60] = 255
    images = [tf.io.encode_png(i).numpy() for i in (image, np.zeros((9, 9, 3), np.uint8))]
    found = tiled_detector(Detector(("cat",), None, None, bright), Tiles(2, 2)).detect(images)
    assert [len(f["boxes"]) for f in found] == [1, 0]


def test_the_pixel_limit_of_the_detector_holds():
    def encoded(width):
        return tf.io.encode_png(np.zeros((10, width, 3), np.uint8)).numpy()

    small = Detector(("cat",), None, None, bright, 100)
    with pytest.raises(ValueError, match="one of 1 images cannot be decoded"):
        tiled_detector(small, Tiles(2, 2)).detect([encoded(11)])
    assert len(tiled_detector(small, Tiles(2, 2)).detect([encoded(10)])) == 1
