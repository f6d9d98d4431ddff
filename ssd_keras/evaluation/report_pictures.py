"""Pictures of the report: misses, false positives, and the tiling over an image."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ssd_keras.boxes import yxyx_to_cyxhw
from ssd_keras.config import SSDConfig
from ssd_keras.data.records import read_samples
from ssd_keras.drawing import class_color, contact_sheet, draw_detections
from ssd_keras.evaluation.analysis import Example
from ssd_keras.images import decode_image
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.record_sets import record_label_ids, relabeled
from ssd_keras.tiling import default_boxes

_SIDE = 360  # pixels of the longer side of a picture
_MAP_SIDE = 300


def read_images(records: str | os.PathLike[str], numbers: Sequence[int]) -> dict[int, bytes]:
    """Reads some images of a record set.

    Args:
        records: Folder of the record set.
        numbers: Numbers of the images in stored order, from 0.

    Returns:
        Number of the image -> encoded image.

    Raises:
        FileNotFoundError, ValueError: If the record set is incomplete or damaged.
    """
    wanted = set(numbers)
    found: dict[int, bytes] = {}
    for number, sample in enumerate(read_samples(records)):
        if number in wanted:
            found[number] = sample.image
            if len(found) == len(wanted):
                break
    return found


def example_picture(
    example: Example, encoded: bytes, detector: Detector, labels: Sequence[str]
) -> Image.Image:
    """Draws the box of a missed object or of a false positive on its image.

    Args:
        example: The example. For a detection, the detector runs again to get its box.
        encoded: The encoded image.
        detector: The detector of the example.
        labels: Class names of the records.

    Returns:
        RGB image with a longer side of 360 pixels.
    """
    pixels = decode_image(encoded).numpy()
    height, width = pixels.shape[:2]
    if example.box is not None:
        box = np.array(example.box) / (height, width, height, width)
    else:
        label_ids = record_label_ids(detector.labels, labels)
        found = relabeled(detector.detect([encoded])[0], label_ids)
        box = found["boxes"][example.index]
    picture = Image.fromarray(pixels)
    scale = _SIDE / max(picture.size)
    picture = picture.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR
    )
    scores = None if example.box is not None else np.array([example.score])
    return draw_detections(picture, box[None], np.array([example.class_id]), labels, scores)


def tiling_picture(encoded: bytes, config: SSDConfig) -> Image.Image:
    """Draws the default boxes over an image: one panel for each feature map.

    Dots mark the centers of all cells. The boxes are those of the cell that is nearest to the
    center of the image.

    Args:
        encoded: The encoded image.
        config: Config of the model.

    Returns:
        RGB image of all panels.
    """
    image = Image.fromarray(decode_image(encoded).numpy()).resize((_MAP_SIDE, _MAP_SIDE))
    image = Image.blend(image, Image.new("RGB", image.size, (255, 255, 255)), 0.35)
    boxes = default_boxes(config)
    panels, start = [], 0
    for feature_map in config.feature_maps:
        rows, columns = feature_map.grid
        count = rows * columns * feature_map.boxes_per_location
        mine = boxes[start : start + count]
        centers = yxyx_to_cyxhw(mine).numpy()[:, :2].round(6)  # equal for the boxes of a cell
        start += count
        panel = image.copy()
        draw = ImageDraw.Draw(panel)
        for cy, cx in np.unique(centers, axis=0) * _MAP_SIDE:
            draw.ellipse((cx - 1, cy - 1, cx + 1, cy + 1), fill=(0, 0, 0))
        nearest = centers[np.argmin(np.sum((centers - 0.5) ** 2, axis=1))]
        corners = mine[np.all(centers == nearest, axis=1)] * _MAP_SIDE
        for number, (ymin, xmin, ymax, xmax) in enumerate(corners.tolist(), start=1):
            draw.rectangle((xmin, ymin, xmax, ymax), outline=class_color(number), width=2)
        text = f"{feature_map.name}: {rows} x {columns} cells, {count} boxes"
        draw.text((4, 4), text, fill="black", stroke_width=3, stroke_fill="white", font_size=13)
        panels.append(panel)
    return contact_sheet(panels, columns=3, cell=_MAP_SIDE)
