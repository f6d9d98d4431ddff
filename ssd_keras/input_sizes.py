"""Sizes that are given as one number or as a pair, and the feature map grids of an input size."""

from typing import TypeVar

N = TypeVar("N", int, float)

# (rows, columns), (vertical step, horizontal step) of one map.
Grid = tuple[tuple[int, int], tuple[float, float]]

_MAX_EXTRA_LAYERS = 5


def pair(value: N | tuple[N, N]) -> tuple[N, N]:
    """Returns (vertical, horizontal) for a pair, or for one number that holds for both axes."""
    return value if isinstance(value, tuple) else (value, value)


def grids(image_size: tuple[int, int]) -> tuple[list[Grid], list[tuple[int, int, int]]]:
    """Computes the grids of conv4_3, fc7 and the extra layers.

    At most five extra layers halve the map until its shorter side has one cell. If the shorter side
    has 5 or 3 cells, a 3x3 convolution without padding removes two of them, as in SSD300. If it has
    2 cells, a 4x4 convolution with padding 1 removes one, as in SSD512. The steps of these maps are
    the side of the image divided by the number of cells.

    Args:
        image_size: (height, width) in pixels.

    Returns:
        Two lists. For each map ((rows, columns), (vertical step, horizontal step)), with steps in
        pixels. For each extra layer (kernel, stride, padding).

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
    """Converts a whole number to int and returns other numbers unchanged, so that 16.0 is 16."""
    return int(number) if number == int(number) else number
