"""The built-in dataset: images of shapes, drawn on demand.

The five classes differ in their outlines only. Shapes and background have random colors and
textures. The shapes vary in size, are slightly rotated, and overlap very little.
"""

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw

from ssd_keras.data.records import Sample

SHAPE_LABELS = ("disk", "ring", "square", "triangle", "cross")

_MAX_OBJECTS = 8
_SIZES = (24 / 300, 170 / 300)  # smallest and largest, as a fraction of the image's side
_MAX_OVERLAP = 0.1  # of two boxes, as a fraction of the area of the smaller one
_MAX_ROTATION = np.pi / 9
_SUPERSAMPLING = 4
_HALF_COVERED = [0] * 128 + [255] * 128  # lookup table: 255 if a pixel is at least half covered
_JPEG_QUALITY = 90

# Corners as (x, y). The unit is arbitrary.
_OUTLINES = {
    "square": np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": np.array([(0, -1), (1, 1), (-1, 1)]),
    "cross": np.array(
        [
            *[(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)],
            *[(1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)],
        ]
    ),
}


def draw_shapes(
    num_images: int,
    seed: int,
    *,
    image_size: int = 300,
    keep: Callable[[str], bool] = lambda image_id: True,
) -> Iterator[Sample]:
    """Draws images of shapes with their ground truth.

    An image depends only on `seed` and its index, so a large set begins with the images of a
    smaller one.

    Args:
        num_images: Number of images.
        seed: Seed, at least 0. Use different seeds for the training set and the test set.
        image_size: Height and width in pixels, at least 64.
        keep: Function from the id of an image to whether it is drawn.

    Yields:
        One sample for each image, encoded as JPEG, with 1 to 8 objects.

    Raises:
        ValueError: If `image_size` is too small for the smallest shapes.
    """
    if image_size < 64:
        raise ValueError(f"`image_size` (={image_size}) must be at least 64 pixels")
    for index in range(num_images):
        image_id = f"shapes-{seed}-{index:06d}"
        if keep(image_id):
            yield _draw_sample(np.random.default_rng((seed, index)), image_id, image_size)


def _draw_sample(rng: np.random.Generator, image_id: str, image_size: int) -> Sample:
    """Draws one image. A shape that finds no room is left out."""
    background_color = rng.uniform(40, 215, 3)
    image = _texture(rng, background_color, image_size, image_size)
    boxes: list[np.ndarray] = []
    labels: list[int] = []
    for size in _draw_sizes(rng, image_size):
        label = int(rng.integers(1, len(SHAPE_LABELS) + 1))
        mask = _draw_mask(rng, SHAPE_LABELS[label - 1], size)
        box = _place(rng, mask, boxes, image_size)
        if box is not None:
            fill = _texture(rng, _contrasting_color(rng, background_color), *mask.size)
            image.paste(fill, (int(box[1]), int(box[0])), mask)
            boxes.append(box)
            labels.append(label)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return Sample(
        image=encoded.getvalue(),
        image_id=image_id,
        height=image_size,
        width=image_size,
        boxes=np.array(boxes, np.float32) / image_size,
        labels=np.array(labels, np.int64),
        difficult=np.zeros(len(labels), bool),
    )


def _draw_sizes(rng: np.random.Generator, image_size: int) -> np.ndarray:
    """Draws sizes in pixels, largest first, so that large shapes find room."""
    num_objects = rng.integers(1, _MAX_OBJECTS + 1)
    return np.sort(rng.uniform(*_SIZES, num_objects) * image_size)[::-1]


def _draw_mask(rng: np.random.Generator, shape: str, size: float) -> Image.Image:
    """Draws an antialiased mask, cropped to the pixels that are at least half covered."""
    side = int(np.ceil(size)) * _SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    if shape in _OUTLINES:
        angle = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
        rotation = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        points = _OUTLINES[shape] @ rotation
        points -= points.min(axis=0)
        points *= (side - 1) / points.max()
        draw.polygon([(float(x), float(y)) for x, y in points], fill=255)
    else:
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
        if shape == "ring":
            hole = side * rng.uniform(0.2, 0.3)
            draw.ellipse((hole, hole, side - 1 - hole, side - 1 - hole), fill=0)
    mask = canvas.reduce(_SUPERSAMPLING)
    return mask.crop(mask.point(_HALF_COVERED).getbbox())


def _place(
    rng: np.random.Generator, mask: Image.Image, boxes: list[np.ndarray], image_size: int
) -> np.ndarray | None:
    """Finds a box in pixels (yxyx) that overlaps the other boxes very little, or returns None."""
    sides = np.array([mask.height, mask.width])
    corners = rng.integers(image_size - sides + 1, size=(20, 2))
    candidates = np.concatenate([corners, corners + sides], axis=1)
    fits = np.ones(len(candidates), bool)
    for box in boxes:
        overlap = np.minimum(candidates[:, 2:], box[2:]) - np.maximum(candidates[:, :2], box[:2])
        smaller = min(np.prod(sides), np.prod(box[2:] - box[:2]))
        fits &= np.prod(np.maximum(overlap, 0), axis=1) <= _MAX_OVERLAP * smaller
    return candidates[fits.argmax()] if fits.any() else None


def _contrasting_color(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Draws a color that differs from the background by at least 90 levels in some channel."""
    while True:
        color = rng.uniform(10, 245, 3)
        if np.abs(color - background).max() >= 90:
            return color


def _texture(rng: np.random.Generator, color: np.ndarray, width: int, height: int) -> Image.Image:
    """Draws an image of a color with stripes, coarse blotches and fine blotches."""
    amplitude, direction = rng.uniform(0, 12), rng.uniform(0, np.pi)  # of the stripes
    frequency = 2 * np.pi / rng.uniform(6, 40)
    y = (np.arange(height) * frequency * np.sin(direction)).astype(np.float32)[:, None]
    x = (np.arange(width) * frequency * np.cos(direction)).astype(np.float32)
    shade = amplitude * (np.sin(y) * np.cos(x) + np.cos(y) * np.sin(x))  # sin(y + x)
    for cells, amplitude in ((rng.integers(3, 7), 25), (rng.integers(20, 40), 10)):
        grid = rng.uniform(-amplitude, amplitude, (cells, cells)).astype(np.float32)
        blotches = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        shade += np.asarray(blotches)
    gray = Image.fromarray((shade + 128).astype(np.uint8))
    tables = np.clip(np.arange(-128, 128) + color[:, None], 0, 255).astype(int)  # [3, 256]
    return Image.merge("RGB", [gray.point(table.tolist()) for table in tables])
