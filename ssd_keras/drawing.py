"""Drawing of detections on images, and contact sheets of images."""

import colorsys
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssd_keras.images import to_rgb

_MIN_FONT_SIZE = 9
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)

Picture = np.ndarray | Image.Image


def draw_detections(
    image: Picture,
    boxes: np.ndarray,
    classes: np.ndarray,
    labels: Sequence[str],
    scores: np.ndarray | None = None,
) -> Image.Image:
    """Draws boxes and their labels on a copy of an image, the highest score on top.

    Line width and font size grow with the image. A label is drawn above its box, or inside the box
    if there is no space above it. A label that is larger than the image is left out.

    Args:
        image: uint8 [H, W, 3] RGB, or a Pillow image.
        boxes: float [N, 4], normalized `yxyx`.
        classes: int [N], counted from 1. Rows with class 0 are padding and are not drawn.
        labels: Class names. `labels[0]` is the name of class 1.
        scores: float [N], drawn after the labels; None for ground truth.

    Returns:
        RGB image with the size of `image`.

    Raises:
        ValueError: If `boxes`, `classes` and `scores` differ in length, or a class has no label.
        OSError: If a Pillow image has mode I or F, whose range of values is unknown.
    """
    picture = to_rgb(_as_pil(image))
    boxes, classes = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(classes)
    lengths = {len(boxes), len(classes), len(classes if scores is None else scores)}
    if len(lengths) > 1:
        raise ValueError(
            f"boxes ({len(boxes)}), classes ({len(classes)}) and scores "
            f"({'none' if scores is None else len(scores)}) must have the same length"
        )
    real = classes != 0
    boxes, classes = boxes[real], classes[real]
    scores = None if scores is None else np.asarray(scores)[real]
    for class_id in classes:
        if not 1 <= class_id <= len(labels):
            raise ValueError(
                f"classes has {class_id}, but must be from 1 to {len(labels)}: give a label for "
                "each class"
            )

    draw = ImageDraw.Draw(picture)
    short_side = min(picture.size)
    line = max(1, round(short_side / 200))
    font = _font(max(_MIN_FONT_SIZE, round(short_side / 32)))
    size = np.array([picture.height, picture.width] * 2)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    corners = [_pixel_corners(boxes[i] * size, picture) for i in order]
    for i, corner in zip(order, corners, strict=True):
        draw.rectangle(corner, outline=class_color(int(classes[i])), width=line)
    for i, corner in zip(order, corners, strict=True):
        text = labels[int(classes[i]) - 1]
        if scores is not None:
            text = f"{text} {scores[i]:.2f}"
        _draw_tag(draw, text, font, corner, class_color(int(classes[i])))
    return picture


def class_color(class_id: int) -> tuple[int, int, int]:
    """Returns the color that boxes of a class are drawn in.

    The hues of consecutive classes are a golden section apart. Three pairs of saturation and
    brightness repeat.

    Args:
        class_id: Number of the class, counted from 1.

    Returns:
        RGB levels, 0..255.
    """
    saturation, value = ((0.9, 1.0), (0.9, 0.6), (0.45, 1.0))[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(class_id * 0.618034 % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def contact_sheet(images: Sequence[Picture], columns: int = 4, cell: int = 320) -> Image.Image:
    """Arranges images on one sheet, row by row.

    Images larger than a cell are reduced to its size. Smaller images keep their size.

    Args:
        images: One or more images, each uint8 [H, W, 3] RGB or a Pillow image.
        columns: Number of images in a row.
        cell: Side of the square cell of each image, in pixels.

    Returns:
        RGB image of the sheet, with a white background.

    Raises:
        ValueError: If there are no images, or `columns` or `cell` is below 1.
        OSError: If a Pillow image has mode I or F, whose range of values is unknown.
    """
    if not images or columns < 1 or cell < 1:
        raise ValueError(
            f"images ({len(images)}), columns (={columns}) and cell (={cell}) must be at least 1"
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    gap = max(1, cell // 64)
    step = cell + gap
    sheet = Image.new("RGB", (columns * step + gap, rows * step + gap), _LIGHT)
    for number, image in enumerate(images):
        thumbnail = to_rgb(_as_pil(image))
        thumbnail.thumbnail((cell, cell), Image.Resampling.LANCZOS)
        row, column = divmod(number, columns)
        left = gap + column * step + (cell - thumbnail.width) // 2
        top = gap + row * step + (cell - thumbnail.height) // 2
        sheet.paste(thumbnail, (left, top))
    return sheet


def _as_pil(image: Picture) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def _pixel_corners(box: np.ndarray, picture: Image.Image) -> tuple[float, float, float, float]:
    """Returns (left, top, right, bottom) of a box in whole pixels, clipped to the picture.

    Right is at least left, and bottom at least top.
    """
    top, left, bottom, right = (round(float(side)) for side in box)
    left, right = np.clip((left, right), 0, picture.width - 1).tolist()
    top, bottom = np.clip((top, bottom), 0, picture.height - 1).tolist()
    return left, top, max(left, right), max(top, bottom)


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont,
    corners: tuple[float, float, float, float],
    color: tuple[int, int, int],
) -> None:
    margin = max(1, font.size // 6)
    ascent, descent = font.getmetrics()
    width = round(font.getlength(text)) + 2 * margin
    height = ascent + descent
    if width > draw.im.size[0] or height > draw.im.size[1]:
        return
    left = min(corners[0], draw.im.size[0] - width)
    top = corners[1] - height if corners[1] >= height else corners[1]
    top = min(top, draw.im.size[1] - height)
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=color)
    red, green, blue = color
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    draw.text((left + margin, top), text, fill=_DARK if bright else _LIGHT, font=font)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Returns DejaVu Sans from matplotlib if it is installed, otherwise Pillow's default font.

    DejaVu Sans has Latin, Greek, Cyrillic and more letters; Pillow's font has Latin letters only.
    """
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        fonts = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
        return ImageFont.truetype(fonts / "DejaVuSans.ttf", size)
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OSError("labels need a Pillow that was built with FreeType support")
    return font
