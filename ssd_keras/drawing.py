"""Drawing of detections on images, and contact sheets of images."""

import colorsys
import functools
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

    Line width and font size grow with the image. A label is drawn above its box, or inside, below
    or beside the box if there is no space or another label is there. A label that is larger than
    the image is left out.

    Args:
        image: A tensor or an array [H, W, 3], RGB 0..255 of any dtype, or a Pillow image.
        boxes: float [N, 4], a tensor or an array, normalized `yxyx`.
        classes: int [N], counted from 1. Rows with class 0 are padding and are not drawn.
        labels: Class names. `labels[0]` is the name of class 1.
        scores: float [N], drawn after the labels; None for ground truth.

    Returns:
        RGB image with the size of `image`.

    Raises:
        ValueError: If `boxes`, `classes` and `scores` differ in length, a class has no label, or an
            argument holds a batch.
        OSError: If a Pillow image has mode I or F, whose range of values is unknown.
    """
    picture = to_rgb(_as_pil(image))
    boxes, classes = np.asarray(boxes), np.asarray(classes)
    if classes.ndim != 1:
        raise ValueError(
            f"boxes have shape {boxes.shape} and classes {classes.shape}, but must be [N, 4] and "
            "[N]: draw one image of a batch at a time"
        )
    boxes = boxes.astype(np.float64).reshape(-1, 4)
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
    order = list(range(len(boxes)) if scores is None else np.argsort(scores, kind="stable"))
    corners = [_pixel_corners(boxes[i] * size, picture) for i in order]
    for i, corner in zip(order, corners, strict=True):
        draw.rectangle(corner, outline=class_color(int(classes[i])), width=line)
    texts = [labels[int(classes[i]) - 1] for i in order]
    if scores is not None:
        texts = [f"{text} {scores[i]:.2f}" for i, text in zip(order, texts, strict=True)]
    tags = _place_tags(texts, corners, font, picture.size)
    for i, text, tag in zip(order, texts, tags, strict=True):
        if tag is not None:
            _draw_tag(draw, text, font, tag, class_color(int(classes[i])))
    return picture


def class_color(class_id: int) -> tuple[int, int, int]:
    """Returns the color that boxes of a class are drawn in.

    The hue advances by the golden ratio from each class to the next. Three pairs of saturation and
    brightness are used in turn.

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
    if isinstance(image, Image.Image):
        return image
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"image has shape {pixels.shape}, but must be one image, [H, W, 3]")
    if pixels.dtype != np.uint8:  # for example float32, 0..255, from a dataset
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _pixel_corners(box: np.ndarray, picture: Image.Image) -> tuple[float, float, float, float]:
    """Returns (left, top, right, bottom) of a box in whole pixels, clipped to the picture.

    Right is at least left, and bottom at least top.
    """
    top, left, bottom, right = (round(float(side)) for side in box)
    left, right = np.clip((left, right), 0, picture.width - 1).tolist()
    top, bottom = np.clip((top, bottom), 0, picture.height - 1).tolist()
    return left, top, max(left, right), max(top, bottom)


def _place_tags(
    texts: Sequence[str],
    corners: Sequence[tuple[float, float, float, float]],
    font: ImageFont.FreeTypeFont,
    picture_size: tuple[int, int],
) -> list[tuple[int, int, int, int] | None]:
    """Chooses a place for each tag, a label on its background: the first that covers no other tag.

    The last box chooses first. The places are above the box, inside it and below it, each at the
    left and at the right edge, then beside the box. If all of them cover a tag, the place that
    covers least is chosen.

    Returns:
        (left, top, right, bottom) of each tag in pixels, right and bottom excluded; None for a tag
        that is larger than the picture.
    """
    margin = _margin(font)
    height = sum(font.getmetrics())
    limit = np.array(picture_size)
    taken: np.ndarray = np.zeros((0, 4), int)
    places: list[tuple[int, int, int, int] | None] = []
    for text, (left, top, right, bottom) in zip(
        reversed(texts), reversed(list(corners)), strict=True
    ):
        width = round(font.getlength(text)) + 2 * margin
        if width > limit[0] or height > limit[1]:
            places.append(None)
            continue
        rows = [top - height, top, bottom - height + 1, bottom + 1]
        starts = [(x, y) for y in rows for x in (left, right - width + 1)]
        starts += [(x, y) for x in (right + 1, left - width) for y in (top, bottom - height + 1)]
        # A place that begins above the picture is dropped, because the place inside the box is
        # better than the same place moved down.
        starts = [(x, y) for x, y in starts if y >= 0] or [(left, 0)]
        size = np.array([width, height])
        low = np.clip(np.array(starts, int), 0, limit - size)
        places_here = np.concatenate([low, low + size], axis=1)
        covered = _covered_pixels(places_here, taken)
        best = places_here[int(np.argmin(covered))]
        taken = np.concatenate([taken, best[None]])
        places.append((int(best[0]), int(best[1]), int(best[2]), int(best[3])))
    return places[::-1]


def _covered_pixels(places: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Returns the number of pixels of each place [N, 4] that lie on taken places [M, 4]."""
    low = np.maximum(places[:, None, :2], taken[:, :2])
    high = np.minimum(places[:, None, 2:], taken[:, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1).sum(axis=-1)


def _margin(font: ImageFont.FreeTypeFont) -> int:
    return max(1, round(font.size) // 6)


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont,
    place: tuple[int, int, int, int],
    color: tuple[int, int, int],
) -> None:
    left, top, right, bottom = place
    draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    red, green, blue = color
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    draw.text((left + _margin(font), top), text, fill=_DARK if bright else _LIGHT, font=font)


@functools.lru_cache(maxsize=16)
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
