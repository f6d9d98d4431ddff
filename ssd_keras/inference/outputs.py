"""Writes detections as pictures, crops, JSON, COCO, VOC and YOLO files."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ssd_keras.detections import Detections
from ssd_keras.drawing import draw_detections
from ssd_keras.files import atomic

# "pictures" are for people, "jsonl" for programs, and "coco", "voc" and "yolo" for labeling tools.
FORMATS = ("pictures", "jsonl", "coco", "voc", "yolo", "crops")
COCO_NAME = "annotations.json"


def write_picture(path: Path, pixels: np.ndarray, shown: Detections, labels: Sequence[str]) -> None:
    """Writes an annotated copy of an image.

    Args:
        path: The image file; its suffix selects the format.
        pixels: uint8 [H, W, 3], RGB.
        shown: The detections to draw.
        labels: Class names; `labels[0]` is class 1.
    """
    picture = draw_detections(pixels, shown["boxes"], shown["classes"], labels, shown["scores"])
    with atomic(path) as temporary:
        picture.save(temporary, quality=95)


def write_voc_xml(
    path: Path, file_name: str, pixels: np.ndarray, found: Detections, labels: Sequence[str]
) -> None:
    """Writes a VOC annotation. Box coordinates are whole pixels, as VOC's tools expect.

    Args:
        path: The XML file.
        file_name: Name of the image file.
        pixels: uint8 [H, W, 3]; only its shape is used.
        found: The detections to write.
        labels: Class names; `labels[0]` is class 1.
    """
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    size = ElementTree.SubElement(root, "size")
    height, width, depth = pixels.shape
    for name, value in (("width", width), ("height", height), ("depth", depth)):
        ElementTree.SubElement(size, name).text = str(value)
    for box, class_id in zip(_pixel_corners(found["boxes"], pixels), found["classes"], strict=True):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = labels[class_id - 1]
        ElementTree.SubElement(item, "difficult").text = "0"
        corners = ElementTree.SubElement(item, "bndbox")
        for name, k in (("xmin", 1), ("ymin", 0), ("xmax", 3), ("ymax", 2)):
            ElementTree.SubElement(corners, name).text = str(box[k])
    ElementTree.indent(root)
    with atomic(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, "utf-8")


def write_yolo_text(path: Path, found: Detections) -> None:
    """Writes a YOLO annotation: one line `class x y width height` per detection.

    Args:
        path: The text file. Its class numbers start at 0; x and y are the center of the box. All
            coordinates are fractions of the image.
        found: The detections to write.
    """
    lines = []
    for (ymin, xmin, ymax, xmax), class_id in zip(
        found["boxes"].tolist(), found["classes"], strict=True
    ):
        sides = ((xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin)
        lines.append(" ".join([str(class_id - 1), *(f"{side:.7f}" for side in sides)]) + "\n")
    with atomic(path) as temporary:
        temporary.write_text("".join(lines), "utf-8")


def write_yolo_names(folder: Path, labels: Sequence[str]) -> None:
    """Writes `classes.txt`, the class names of YOLO annotations, one per line.

    Args:
        folder: Folder to write to.
        labels: Class names, in the order of the class numbers.
    """
    with atomic(folder / "classes.txt") as temporary:
        temporary.write_text("".join(f"{label}\n" for label in labels), "utf-8")


def write_crops(
    folder: Path, stem: str, pixels: np.ndarray, found: Detections, labels: Sequence[str]
) -> None:
    """Writes the content of each box as `<folder>/<class>/<stem>-<number>.jpg`.

    Args:
        folder: Folder to write to.
        stem: First part of the file names.
        pixels: uint8 [H, W, 3], RGB.
        found: The detections; their numbers start at 1.
        labels: Class names; `labels[0]` is class 1.
    """
    for number, (box, class_id) in enumerate(
        zip(_pixel_corners(found["boxes"], pixels), found["classes"], strict=True), start=1
    ):
        ymin, xmin, ymax, xmax = box
        name = re.sub(r"[/\\:\0]", "_", labels[class_id - 1]).strip(". ") or str(class_id)
        with atomic(folder / name / f"{stem}-{number}.jpg") as temporary:
            Image.fromarray(pixels[ymin:ymax, xmin:xmax]).save(temporary, quality=95)


def json_detections(
    found: Detections, height: int, width: int, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Converts the detections of an image to the objects of `detections.jsonl`.

    Args:
        found: The detections.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        labels: Class names; `labels[0]` is class 1.

    Returns:
        One dictionary per detection: `label`, `class_id`, `score`, `box` and `box_pixels`.
    """
    # Arrays are rounded faster than single numbers: an image may have 200 detections.
    boxes = np.asarray(found["boxes"], np.float64)
    columns = (
        np.asarray(found["classes"]).tolist(),
        np.asarray(found["scores"], np.float64).round(6).tolist(),
        boxes.round(6).tolist(),
        (boxes * [height, width, height, width]).round(2).tolist(),
    )
    return [
        {
            "label": labels[class_id - 1],
            "class_id": class_id,
            "score": score,
            "box": box,
            "box_pixels": pixels,
        }
        for class_id, score, box, pixels in zip(*columns, strict=True)
    ]


class COCOWriter:
    """Writes a COCO file image by image. Its memory use does not grow with the number of images.

    Args:
        path: The JSON file. `close` completes it.
        labels: Class names, in the order of the category ids 1, 2, and so on.
    """

    def __init__(self, path: str | os.PathLike[str], labels: Sequence[str]) -> None:
        self._images: IO[str] = open(path, "w", encoding="utf-8")  # noqa: SIM115, closed by `close`
        self._annotations: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._num_images = self._num_annotations = 0
        categories = [{"id": k, "name": label} for k, label in enumerate(labels, start=1)]
        self._images.write(f'{{"categories": {json.dumps(categories)},\n"images": [')

    def add(self, file_name: str, height: int, width: int, found: Detections) -> None:
        """Adds an image and its detections.

        Args:
            file_name: The `file_name` of the image in the COCO file.
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            found: The detections.
        """
        self._num_images += 1
        image = {"file_name": file_name, "height": height, "width": width}
        _append(self._images, self._num_images, {"id": self._num_images, **image})
        boxes = (found["boxes"].astype(np.float64) * ([height, width] * 2)).round(3).tolist()
        for (ymin, xmin, ymax, xmax), class_id, score in zip(
            boxes, found["classes"].tolist(), found["scores"].tolist(), strict=True
        ):
            self._num_annotations += 1
            sides = [round(xmax - xmin, 3), round(ymax - ymin, 3)]
            item = {
                "id": self._num_annotations,
                "image_id": self._num_images,
                "category_id": class_id,
                "bbox": [xmin, ymin, *sides],
                "area": round(sides[0] * sides[1], 3),
                "iscrowd": 0,
                "score": round(score, 6),
            }
            _append(self._annotations, self._num_annotations, item)

    def close(self) -> None:
        """Completes the file."""
        self._images.write('\n],\n"annotations": [')
        self._annotations.seek(0)
        shutil.copyfileobj(self._annotations, self._images)
        self._images.write("\n]}\n")
        self._annotations.close()
        self._images.close()


def _append(file: IO[str], number: int, item: dict[str, Any]) -> None:
    file.write(f"{',' if number > 1 else ''}\n{json.dumps(item)}")


def _pixel_corners(boxes: np.ndarray, pixels: np.ndarray) -> list[list[int]]:
    """Rounds boxes to whole pixels in the image; each result has at least one pixel."""
    height, width = pixels.shape[:2]
    corners = np.round(np.asarray(boxes, np.float64) * ([height, width] * 2)).astype(int)
    low = np.clip(corners[:, :2], 0, [height - 1, width - 1])
    high = np.minimum(np.maximum(corners[:, 2:], low + 1), [height, width])
    return np.concatenate([low, high], axis=1).tolist()
