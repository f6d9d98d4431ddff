"""Reads datasets in YOLO's format: images, and one text file of boxes for each image."""

import functools
import pathlib
import re
from collections.abc import Iterator

import yaml

from ssd_keras.class_names import read_labels, require_unique
from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample
from ssd_keras.data.sources.source import Keep, Object, Source, make_sample, shuffle_by_name
from ssd_keras.files import read_lines, read_text, reading
from ssd_keras.images import MAX_PIXELS, SUFFIXES

_BOX_COLUMNS = 5  # class x y width height
_MAX_YAML_BYTES = 1_000_000  # limit for data.yaml; that of 1203 classes has 30 kB


def open_yolo(
    path: str | pathlib.Path,
    split: str = "",
    labels: dict[str, str] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens a dataset in YOLO's format.

    An image without a text file has no objects. Images are rotated by their EXIF orientation, as in
    YOLO's loaders.

    Args:
        path: The folder.
        split: Name of the split. "train" reads the folders images/train and labels/train, or
            train/images and train/labels. An empty string reads the folders images and labels.
        labels: A dictionary whose values are the class names, in order of the class numbers. None
            uses the names in classes.txt or in data.yaml.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset. Reading its samples raises a `ValueError` if a line of a text file is neither a
        box nor a polygon, or if its class number has no class name.

    Raises:
        FileNotFoundError: If the image folder, the label folder or the class names are missing.
        ValueError: If data.yaml has no names, has a name twice, or declares key points.
    """
    root = pathlib.Path(path)
    layouts = [
        (root / "images" / split, root / "labels" / split),
        (root / split / "images", root / split / "labels"),
    ]
    for image_folder, label_folder in layouts:
        if image_folder.is_dir() and label_folder.is_dir():
            break
    else:
        hint = f"{root} is not a YOLO folder"
        if not split and any(p.is_dir() for p in (root / "images/train", root / "train/images")):
            hint = "give a split, such as --splits=train"
        elif "+" in split:
            hint = "prepare one split at a time and train on both record sets (--records=a,b)"
        raise FileNotFoundError(f"{layouts[0][0]} or {layouts[0][1]} is missing: {hint}")
    found = (p for p in image_folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    paths = shuffle_by_name(found, lambda p: p.relative_to(image_folder).as_posix())
    names = tuple((labels or _class_names(root, label_folder)).values())
    data_yaml = root / "data.yaml"
    # A search in the bytes, since with `labels` the file is not parsed and may be invalid.
    if data_yaml.is_file() and re.search(rb"(?m)^kpt_shape\s*:", data_yaml.read_bytes()):
        raise ValueError(f"{data_yaml} has kpt_shape: labels with key points are not supported")
    notes = Notes()
    ids = {_image_id(path, image_folder) for path in paths}
    ids_of_texts = {_image_id(text, label_folder) for text in label_folder.rglob("*.txt")}
    if not paths:
        raise FileNotFoundError(f"{image_folder} has no image ({', '.join(SUFFIXES)})")
    if not ids & ids_of_texts:
        raise FileNotFoundError(f"{label_folder} has no label file of an image, NAME.txt")
    for name in sorted(ids_of_texts - ids - {"classes"}):
        notes.skipped["label file without image"].append(name)
    return Source(
        description=f"YOLO {root.name} {split}".strip(),
        labels=names,
        num_images=len(paths),
        read=functools.partial(_samples, image_folder, label_folder, paths, len(names), max_pixels),
        notes=notes,
    )


def _samples(
    image_folder: pathlib.Path,
    label_folder: pathlib.Path,
    paths: list[pathlib.Path],
    num_classes: int,
    max_pixels: int,
    keep: Keep,
    notes: Notes,
) -> Iterator[Sample]:
    for path in paths:
        image_id = _image_id(path, image_folder)
        if not keep(image_id):
            continue
        image = load_image(path.read_bytes(), image_id, notes, upright=True, max_pixels=max_pixels)
        if image is None:
            continue
        text = label_folder / f"{image_id}.txt"
        lines = read_lines(text) if text.is_file() else []
        objects = [
            _object(line, num_classes, f"line {k} of {text}")
            for k, line in enumerate(lines, start=1)
        ]
        if any(len(line.split()) > _BOX_COLUMNS for line in lines):
            notes.adjusted["polygons read as bounding boxes"].append(image_id)
        yield make_sample(image, image_id, objects, notes, size=(1, 1))


def _image_id(path: pathlib.Path, folder: pathlib.Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _object(line: str, num_classes: int, where: str) -> Object:
    """Parses a line of a text file: a box or a polygon.

    A box is `class x y width height`, where x and y are its center. A polygon is
    `class x y x y x y ...` and gives its bounding box. Class numbers start at 0, and coordinates
    are normalized. Ultralytics' labels of COCO are polygons, and Ultralytics also trains its
    detectors on their bounding boxes.
    """
    try:
        number, *numbers = map(float, line.split())
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        x, y, width, height = numbers
        box = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
    elif len(numbers) >= 6 and len(numbers) % 2 == 0 and all(-0.1 <= v <= 1.1 for v in numbers):
        xs, ys = numbers[::2], numbers[1::2]
        box = (min(ys), min(xs), max(ys), max(xs))
    else:
        raise ValueError(f"{where} is {line[:80]!r}, not `class x y width height` or a polygon")
    if number not in range(num_classes):
        raise ValueError(
            f"{where} has class number {number:g}, but there are {num_classes} class names: "
            "add one to classes.txt or data.yaml, or correct the annotation"
        )
    return Object(box, int(number) + 1)


def _class_names(root: pathlib.Path, label_folder: pathlib.Path) -> dict[str, str]:
    """Reads the class names from classes.txt or data.yaml, whichever is found first."""
    for path in (root / "classes.txt", label_folder / "classes.txt"):
        if path.is_file():
            return read_labels(path)
    if not (root / "data.yaml").is_file():
        raise FileNotFoundError(
            f"{root / 'classes.txt'} is missing, and so is data.yaml: write a classes.txt with one "
            "class name per line"
        )
    return {name: name for name in _yaml_names(root / "data.yaml")}


def _yaml_names(path: pathlib.Path) -> list[str]:
    """Reads `names` of a data.yaml: a list, or a dictionary with the keys 0, 1, 2, ..."""
    size = path.stat().st_size
    if size > _MAX_YAML_BYTES:  # PyYAML needs ten seconds for a megabyte
        raise ValueError(
            f"{path} has {size} bytes, but may have {_MAX_YAML_BYTES} at most: write a classes.txt "
            "with one class name per line"
        )
    remedy = "write a classes.txt with one class name per line"
    with reading(path, remedy, fault="is not YAML"):
        # BaseLoader keeps every scalar as text. Other loaders turn the class name "no" into False.
        content = yaml.load(read_text(path), Loader=yaml.BaseLoader)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        numbers = [str(k) for k in range(len(names))]
        if set(names) != set(numbers):
            raise ValueError(
                f"{path} has `names` with the keys {', '.join(names)[:200]}: they must be the "
                "class numbers 0, 1, 2, ... without gaps"
            )
        names = [names[number] for number in numbers]
    usable = isinstance(names, list) and all(name and isinstance(name, str) for name in names)
    if not names or not usable:
        raise ValueError(
            f"{path} has no list `names`: write a classes.txt with one class name per line"
        )
    require_unique(names, path)
    return names
