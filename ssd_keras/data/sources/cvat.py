"""Reads exports of CVAT in the format "CVAT for images"."""

import math
import pathlib
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree

from ssd_keras.data.card import Notes
from ssd_keras.data.sources.listed import Box, ListedImage, listed_source, locate
from ssd_keras.data.sources.source import Source, annotated_size
from ssd_keras.images import MAX_PIXELS

_DEFAULT = "annotations.xml"


def open_cvat(
    path: str | pathlib.Path,
    split: str = "",
    labels: dict[str, str] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens an export "CVAT for images 1.1": an XML file, and images.

    Rotated boxes and polygons become their bounding boxes, and the notes name their images. Other
    shapes, such as points, are left out.

    Args:
        path: The folder of the export.
        split: The XML file and optionally the image folder; see `locate`. An empty string means
            annotations.xml.
        labels: Name in the file -> class name, in order of the label ids. None uses the labels of
            the task in their order, or the names of the objects, sorted.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If the file or an image is missing.
        ValueError: If the file is not such an export, or `labels` lacks a class.
    """
    file, folder = locate(path, split or _DEFAULT)
    try:
        root = SafeElementTree.parse(file).getroot()
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f"{file} is not valid XML: {error}") from error
    if root.tag != "annotations" or root.find("image") is None:
        raise ValueError(
            f'{file} has no images: export the task in the format "CVAT for images 1.1"'
        )
    notes = Notes()
    images = list(_images(root, file, notes))
    if labels is None:
        declared = [element.text or "" for element in root.iterfind("meta//labels/label/name")]
        used = {name for image in images for name, _ in image.boxes}
        labels = dict(zip(declared, declared, strict=True)) if used <= set(declared) else None
    return listed_source(
        f"CVAT {file.parent.name}", folder, images, labels or None, notes, max_pixels
    )


def _images(root: Element, file: pathlib.Path, notes: Notes) -> Iterator[ListedImage]:
    for element in root.iterfind("image"):
        name = element.get("name") or ""
        boxes = []
        for shape in element:
            box = _box(shape)
            if box is None:
                notes.skipped[f"shape that is not a box ({shape.tag})"].append(name)
                continue
            if shape.tag == "polygon" or _number(shape, "rotation", 0.0):
                notes.adjusted["rotated box or polygon read as its bounding box"].append(name)
            boxes.append((shape.get("label") or "", box))
        size = annotated_size(element.get("height"), element.get("width"))
        yield ListedImage(name, size, boxes, f"image {name!r} in {file}")


def _box(shape: Element) -> Box | None:
    if shape.tag == "polygon":
        try:
            points = [tuple(map(float, p.split(","))) for p in shape.get("points", "").split(";")]
            xs, ys = zip(*points, strict=True)
        except ValueError:
            return (math.nan,) * 4
        return min(ys), min(xs), max(ys), max(xs)
    if shape.tag != "box":
        return None
    left, top, right, bottom = (_number(shape, side) for side in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(_number(shape, "rotation", 0.0))  # about the center
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    width = (right - left) * cos + (bottom - top) * sin
    height = (right - left) * sin + (bottom - top) * cos
    cy, cx = (top + bottom) / 2, (left + right) / 2
    if not angle:
        return top, left, bottom, right
    return cy - height / 2, cx - width / 2, cy + height / 2, cx + width / 2


def _number(shape: Element, name: str, default: float = math.nan) -> float:
    try:
        return float(shape.get(name, default))
    except ValueError:
        return math.nan
