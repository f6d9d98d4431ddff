"""Reads a CSV table of boxes, as in TensorFlow's tutorials."""

import csv
import io
import pathlib

from ssd_keras.data.card import Notes
from ssd_keras.data.sources.listed import ListedImage, listed_source, locate
from ssd_keras.data.sources.source import Source, annotated_size
from ssd_keras.files import read_text, reading
from ssd_keras.images import MAX_PIXELS

_SIDES = ("ymin", "xmin", "ymax", "xmax")


def open_csv(
    path: str | pathlib.Path,
    split: str,
    labels: dict[str, str] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens a folder of images with a CSV table, one object on each row.

    The first row has the names of the columns: filename, class, xmin, ymin, xmax, ymax, and
    optionally width and height of the image; others are ignored. Boxes are in pixels. A row with an
    empty class is an image without objects.

    Args:
        path: The folder.
        split: The table and optionally the image folder; see `locate`.
        labels: Name in the table -> class name, in order of the label ids. None uses the names in
            the table, sorted.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If a column is missing, a row has no file name, the rows of an image have
            different sizes, or `labels` lacks a class.
    """
    table, folder = locate(path, split)
    reader = csv.DictReader(io.StringIO(read_text(table)), skipinitialspace=True)
    columns = [(name or "").strip() for name in reader.fieldnames or ()]
    reader.fieldnames = columns
    missing = [name for name in ("filename", "class", *_SIDES) if name not in columns]
    if missing:
        raise ValueError(
            f"{table} has no column {', '.join(missing)}: its first row must be "
            "filename,width,height,class,xmin,ymin,xmax,ymax"
        )
    with reading(table, "write it again as CSV", fault="is not a table"):
        images = _images(reader, table)
    description = f"CSV {table.parent.name}/{table.name}"
    return listed_source(description, folder, images.values(), labels, Notes(), max_pixels)


def _images(reader: "csv.DictReader[str]", table: pathlib.Path) -> dict[str, ListedImage]:
    """Returns the images of a table by file name."""
    images: dict[str, ListedImage] = {}
    for row in reader:
        where = f"line {reader.line_num} of {table}"
        name = (row["filename"] or "").strip()
        if not name:
            raise ValueError(f"{where} has no filename")
        size = annotated_size(row.get("height"), row.get("width"))
        image = images.setdefault(name, ListedImage(name, size, [], where))
        if image.size != size:
            raise ValueError(
                f"{where} has the size {size} (height, width), but {image.where} has {image.size} "
                f"for {name}: correct one of them"
            )
        if label := (row["class"] or "").strip():
            ymin, xmin, ymax, xmax = (_number(row[side]) for side in _SIDES)
            image.boxes.append((label, (ymin, xmin, ymax, xmax)))
    return images


def _number(text: str | None) -> float:
    """Returns the number in a field, or NaN. `make_sample` leaves out a box with NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
