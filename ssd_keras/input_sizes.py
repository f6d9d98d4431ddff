"""Sizes that are one number for a square or a pair, and the feature maps of an input size."""

from typing import TypeVar

N = TypeVar("N", int, float)

# (rows, columns), (vertical step, horizontal step) of one map.
Grid = tuple[tuple[int, int], tuple[float, float]]

_MAX_EXTRA_LAYERS = 5


def pair(value: N | tuple[N, N]) -> tuple[N, N]:
    """Returns (vertical, horizontal) of a value that may be one number for both."""
    return value if isinstance(value, tuple) else (value, value)


def grids(image_size: tuple[int, int]) -> tuple[list[Grid], list[tuple[int, int, int]]]:
    """Computes the grids of conv4_3, fc7 and the extra layers.

    The extra layers halve the map until its shorter side has one cell. As in SSD300, a side of 5 or
    3 cells loses two by a convolution without padding. As in SSD512, a side of 2 cells loses one
    by a 4x4 convolution. The cells of such maps are spread over the whole image.

    Args:
        image_size: (height, width) in pixels.

    Returns:
        For each map its grid and its steps in pixels. And for each extra layer its (kernel, stride,
        padding).

    Source: `VGGNetBody` in `model_libs.py`, `AddExtraLayers` in `ssd_pascal.py`.
    """
    grid, step = image_size, 1
    for _ in range(3):
        grid, step = _halved(grid), 2 * step
    maps: list[Grid] = [(grid, (step, step))]
    grid, step = _halved(grid), 2 * step
    maps.append((grid, (step, step)))
    layers: list[tuple[int, int, int]] = []
    while min(grid) > 1 and len(layers) < _MAX_EXTRA_LAYERS:
        if min(grid) in (2, 3, 5):
            kernel, padding = (4, 1) if min(grid) == 2 else (3, 0)
            lost = kernel - 1 - 2 * padding
            grid = grid[0] - lost, grid[1] - lost
            maps.append((grid, (whole(image_size[0] / grid[0]), whole(image_size[1] / grid[1]))))
            layers.append((kernel, 1, padding))
        else:
            grid, step = _halved(grid), 2 * step
            maps.append((grid, (step, step)))
            layers.append((3, 2, 1))
    return maps, layers


def _halved(grid: tuple[int, int]) -> tuple[int, int]:
    return -(-grid[0] // 2), -(-grid[1] // 2)


def whole(number: float) -> float:
    """Returns an integer for a whole number, as people write it."""
    return int(number) if number == int(number) else number
