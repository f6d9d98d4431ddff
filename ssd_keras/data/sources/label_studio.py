"""Reads exports of Label Studio in its JSON formats."""

import json
import math
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from ssd_keras.data.card import Notes
from ssd_keras.data.sources.listed import Box, ListedImage, listed_source, locate
from ssd_keras.data.sources.source import Source, annotated_size
from ssd_keras.files import read_text, reading
from ssd_keras.images import MAX_PIXELS

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # Label Studio adds it to the names of uploads


def open_label_studio(
    path: str | pathlib.Path,
    split: str,
    labels: dict[str, str] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens an export of Label Studio, JSON or JSON-MIN, with rectangles.

    The images must be in the folder, with the names that they had when they were uploaded. Rotated
    rectangles become their bounding boxes. Of several annotations of a task, the first one that was
    not cancelled is used. The notes name the images in both cases. Tasks without annotation are
    left out.

    Args:
        path: The folder with the export and the images.
        split: The JSON file and optionally the image folder; see `locate`.
        labels: Name in the file -> class name, in order of the label ids. None uses the names in
            the file, sorted.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If the file or an image is missing.
        ValueError: If the file is not such an export, or `labels` lacks a class.
    """
    file, folder = locate(path, split)
    try:
        tasks = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{file} is not a list of tasks: export JSON or JSON-MIN")
    names = {p.name for p in folder.rglob("*")}
    notes = Notes()
    with reading(file, "export it from Label Studio again", fault="is not JSON or JSON-MIN"):
        images = list(_images(tasks, file, names, notes))
    return listed_source(f"Label Studio {file.name}", folder, images, labels, notes, max_pixels)


def _images(
    tasks: list[dict[str, Any]], file: pathlib.Path, names: set[str], notes: Notes
) -> Iterator[ListedImage]:
    for number, task in enumerate(tasks):
        where = f"task {task.get('id', number)} in {file}"
        data = task.get("data", task)
        value = next((v for v in data.values() if isinstance(v, str) and _is_image(v)), None)
        if value is None:
            raise ValueError(f"{where} has no image")
        name = _file_name(value, names)
        regions = _regions(task, name, notes)
        if regions is None:  # `listed_source` adds the image to the notes
            continue
        size, boxes = None, []
        for region in regions:
            found = {**region, **region.get("value", {})}
            texts = found.get("rectanglelabels")
            if not texts:
                notes.skipped["region that is not a labeled rectangle"].append(name)
                continue
            size = annotated_size(found.get("original_height"), found.get("original_width"))
            if size is None:
                raise ValueError(f"{where} has a rectangle without original_width and _height")
            if found.get("rotation"):
                notes.adjusted["rotated box read as its bounding box"].append(name)
            boxes += [(str(text), _box(found, size)) for text in texts]
        yield ListedImage(name, size, boxes, where)


def _regions(task: dict[str, Any], name: str, notes: Notes) -> list[dict[str, Any]] | None:
    """Returns the regions of a task, or None if nobody has annotated it."""
    if "annotations" not in task:  # JSON-MIN has the regions of the only annotation
        found = [v for v in task.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        return found[0] if found else ([] if "annotator" in task else None)
    done = [a for a in task["annotations"] if not a.get("was_cancelled")]
    if len(done) > 1:
        notes.adjusted["first of several annotations"].append(name)
    return list(done[0].get("result", [])) if done else None


def _is_image(value: str) -> bool:
    return re.search(r"\.(jpe?g|png|bmp|gif|webp|tiff?)$", value, re.IGNORECASE) is not None


def _file_name(value: str, names: set[str]) -> str:
    """Returns the file name in the address of an image.

    The prefix that Label Studio adds to uploads is removed, unless a file has the full name.
    """
    address = urllib.parse.urlsplit(value)
    local = urllib.parse.parse_qs(address.query).get("d", [address.path])[0]  # local files: ?d=PATH
    name = urllib.parse.unquote(local).replace("\\", "/").rpartition("/")[2]
    return name if name in names else _UPLOAD_PREFIX.sub("", name)


def _box(found: dict[str, Any], size: tuple[int, int]) -> Box:
    """Converts a rectangle in percent of the image to (ymin, xmin, ymax, xmax) in pixels.

    All values are NaN if a number is missing.
    """
    try:
        x, y, width, height = (float(found[key]) / 100 for key in ("x", "y", "width", "height"))
        angle = math.radians(float(found.get("rotation") or 0))  # clockwise about the top left
    except (KeyError, TypeError, ValueError):
        return (math.nan,) * 4
    rows, columns = size
    left, top, width, height = x * columns, y * rows, width * columns, height * rows
    cos, sin = math.cos(angle), math.sin(angle)
    xs = [left + a * width * cos - b * height * sin for a in (0, 1) for b in (0, 1)]
    ys = [top + a * width * sin + b * height * cos for a in (0, 1) for b in (0, 1)]
    return min(ys), min(xs), max(ys), max(xs)
