import dataclasses

import numpy as np
import pytest

from ssd_keras.boxes import cyxhw_to_yxyx, yxyx_to_cyxhw
from ssd_keras.config import CONFIGS, SSD300_VOC, SSD512_VOC
from ssd_keras.tiling import default_boxes
from tests.golden_inputs import answers
from tests.reference import core as reference


def centered(config):
    return yxyx_to_cyxhw(default_boxes(config)).numpy()


def test_first_cell_of_ssd300():
    # conv4_3: centre (0.5 * 8) pixels; squares of 30 and sqrt(30 * 60) = 42.4264; then 2 and 1/2:
    # 30 / sqrt(2) = 21.2132 high and 30 * sqrt(2) = 42.4264 wide, and the other way round.
    pixels = centered(SSD300_VOC)[:4] * 300
    np.testing.assert_allclose(
        pixels,
        [
            [4, 4, 30, 30],
            [4, 4, 42.4264, 42.4264],
            [4, 4, 21.2132, 42.4264],
            [4, 4, 42.4264, 21.2132],
        ],
        rtol=1e-5,
    )


def test_order_is_map_row_column():
    boxes = centered(SSD300_VOC) * 300
    np.testing.assert_allclose(boxes[4, :2], [4, 12])  # next column
    np.testing.assert_allclose(boxes[38 * 4, :2], [12, 4])  # next row
    np.testing.assert_allclose(boxes[38 * 38 * 4], [8, 8, 60, 60], rtol=1e-6)  # next map
    np.testing.assert_allclose(boxes[-4], [150, 150, 264, 264], rtol=1e-6)  # the last map


def test_second_squares_of_ssd300():
    starts = np.cumsum([0, 38**2 * 4, 19**2 * 6, 10**2 * 6, 5**2 * 6, 3**2 * 4])
    squares = centered(SSD300_VOC)[starts + 1, 2] * 300
    wanted = [42.4264, 81.6088, 134.0970, 185.7579, 237.1329, 288.3748]
    np.testing.assert_allclose(squares, wanted, rtol=1e-5)


def test_ssd512_truncates_sizes_as_the_original_does():
    truncated = centered(SSD512_VOC) * 512
    np.testing.assert_allclose(truncated[0, 2], 35, rtol=1e-6)
    np.testing.assert_allclose(truncated[1, 2], np.sqrt(35 * 76), rtol=1e-6)
    exact = centered(dataclasses.replace(SSD512_VOC, integer_sizes=False)) * 512
    np.testing.assert_allclose(exact[0, 2], 35.84, rtol=1e-6)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equals_the_slow_reference(config):
    boxes = default_boxes(config)
    assert boxes.dtype == np.float32
    want = cyxhw_to_yxyx(reference.default_boxes(config))
    np.testing.assert_allclose(boxes, want, rtol=1e-6, atol=2e-7)


def test_clipping_is_off_by_default_and_cuts_at_the_border():
    boxes = default_boxes(SSD300_VOC)
    assert boxes.min() < 0
    clipped = default_boxes(dataclasses.replace(SSD300_VOC, clip=True))
    # The first box reaches from -11 to 19 pixels: 0 to 19 is left.
    np.testing.assert_allclose(clipped[0] * 300, [0, 0, 19, 19], rtol=1e-6)
    assert clipped.min() >= 0
    assert clipped.max() <= 1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_floats_as_the_originals(name):
    """Bit for bit. The golden file has the y of each row of cells and the x of each column."""
    golden, start = answers("default_boxes"), 0
    boxes = default_boxes(CONFIGS[name])
    for m in CONFIGS[name].feature_maps:
        y, x = (golden[f"{name}/{m.name}/{axis}"] for axis in "yx")
        count = m.size**2 * m.boxes_per_location
        part = boxes[start : start + count].reshape(m.size, m.size, -1, 4)
        start += count
        np.testing.assert_array_equal(part[..., ::2], np.repeat(y[:, None], m.size, axis=1))
        np.testing.assert_array_equal(part[..., 1::2], np.repeat(x[None], m.size, axis=0))
    assert start == len(boxes)
