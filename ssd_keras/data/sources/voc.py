"""Reads PASCAL VOC, folders of the same layout, and ILSVRC DET: one XML file for each image."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from defusedxml import ElementTree as SafeElementTree

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample
from ssd_keras.data.sources.source import (
    Keep,
    Object,
    Source,
    annotated_size,
    label_id,
    make_sample,
    path_inside,
    require_files,
    shuffle_by_name,
    warn_if_size_differs,
)
from ssd_keras.files import read_lines
from ssd_keras.images import MAX_PIXELS, SUFFIXES

_PUBLISHED_SIZES = {
    "VOC2007:train": 2501,
    "VOC2007:val": 2510,
    "VOC2007:trainval": 5011,
    "VOC2007:test": 4952,
    "VOC2012:train": 5717,
    "VOC2012:val": 5823,
    "VOC2012:trainval": 11540,
    "DET:train": 456567,
    "DET:val": 20121,
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Files:
    """The id of an image, its image file and its XML file."""

    image_id: str
    image: pathlib.Path
    annotation: pathlib.Path


def open_voc(
    path: str | pathlib.Path,
    splits: str,
    labels: dict[str, str] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens a VOCdevkit, or a folder with Annotations, JPEGImages and ImageSets/Main.

    Coordinates are divided by width and height without a shift by one pixel, as in the original.
    Unlike in the original, coordinates may have fractions.

    Args:
        path: The folder. For "2007:trainval" it is the folder that contains VOC2007.
        splits: Splits joined by "+". "2007:trainval" reads the list ImageSets/Main/trainval.txt in
            the folder VOC2007, "mine:train" the list train.txt in the folder mine, and "train" the
            list train.txt in `path` itself. An empty string reads all annotations in `path`.
        labels: Name in the XML files -> class name, in order of the label ids. None uses the names
            in all annotations of the folders, sorted.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset. Reading its samples raises a `ValueError` if the class of an object is not in
        `labels`.

    Raises:
        FileNotFoundError: If a folder, a list, an image or an annotation is missing.
        ValueError: If a list is VOC's list of one class, or it names a file outside the folder.

    Source:
        io.cpp (ReadXMLToAnnotatedDatum).
    """
    files: list[_Files] = []
    notes = Notes()
    folders: dict[pathlib.Path, None] = {}  # an ordered set
    for token in splits.split("+"):
        year, _, split = token.rpartition(":")
        folder = pathlib.Path(path, f"VOC{year}" if year.isdigit() else year)
        annotations = folder / "Annotations"
        if not annotations.is_dir():
            raise FileNotFoundError(
                f"{annotations} is missing: {folder} is not a VOC folder{_hint(path)}"
            )
        if split:
            names = read_lines(folder / "ImageSets" / "Main" / f"{split}.txt")
            warn_if_size_differs(f"{folder.name}:{split}", len(names), _PUBLISHED_SIZES)
            flagged = all(re.search(r"\s(-1|0|1)$", name) for name in names)
            if names and flagged and not path_inside(annotations, f"{names[0]}.xml").is_file():
                raise ValueError(
                    f"{split}.txt in {folder} is VOC's list of one class, with -1, 0 or 1 after "
                    f"each image: use the list of all images, {split.rpartition('_')[2]}"
                )
        else:
            names = sorted(xml.stem for xml in annotations.glob("*.xml"))
            if not names:
                raise FileNotFoundError(f"{annotations} has no annotation, a file NAME.xml")
            pictures = {image.stem for image in (folder / "JPEGImages").glob("*")}
            for name in sorted(pictures - set(names)):
                notes.skipped["image without annotation"].append(name)
        folders[annotations] = None
        files += [
            _Files(
                name,
                _image_path(path_inside(folder / "JPEGImages", name)),
                path_inside(annotations, f"{name}.xml"),
            )
            for name in names
        ]
    if labels is None:
        labels = {name: name for name in sorted(_class_names(folders))}
        if not labels:
            raise ValueError(
                f"no object was found in the annotations in {', '.join(map(str, folders))}: "
                "give the class names with --labels"
            )
    description = f"VOC {pathlib.Path(path).name} {splits}".strip()
    return _source(description, files, labels, notes, max_pixels)


def open_ilsvrc_det(
    path: str | pathlib.Path,
    splits: str,
    labels: dict[str, str],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens ILSVRC DET: a folder with Annotations/DET, Data/DET and ImageSets/DET.

    Images without an annotation file are left out, as in the original. An image without objects
    has no positives, so its loss would be 0.

    Args:
        path: The folder ILSVRC.
        splits: Names of lists joined by "+", such as "train+val1".
        labels: WordNet id -> class name, in order of the label ids.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset. Reading its samples raises a `ValueError` if the class of an object is not in
        `labels`.

    Raises:
        FileNotFoundError: If a list or an image is missing.
        ValueError: If a list names a file outside the folder.

    Source:
        data/ILSVRC2016/create_list.py.
    """
    root = pathlib.Path(path)
    files: list[_Files] = []
    notes = Notes()
    for split in splits.split("+"):
        lines = read_lines(root / "ImageSets" / "DET" / f"{split}.txt")
        warn_if_size_differs(f"DET:{split}", len(lines), _PUBLISHED_SIZES)
        for line in lines:
            name = line.split()[0]
            subset = "val" if "_val_" in name else "train"
            annotation = path_inside(root / "Annotations" / "DET" / subset, f"{name}.xml")
            if annotation.is_file():
                image = path_inside(root / "Data" / "DET" / subset, f"{name}.JPEG")
                files.append(_Files(name, image, annotation))
            else:
                notes.skipped["image without annotation"].append(name)
    return _source(f"ILSVRC DET {splits}", files, labels, notes, max_pixels)


def _source(
    description: str,
    files: list[_Files],
    labels: dict[str, str],
    notes: Notes,
    max_pixels: int,
) -> Source:
    require_files(file.annotation for file in files)
    require_files(file.image for file in files)
    files = shuffle_by_name(files, lambda file: file.image_id)
    ids = {name: k for k, name in enumerate(labels, start=1)}
    read = functools.partial(_samples, files, ids, max_pixels)
    return Source(description, tuple(labels.values()), len(files), read, notes)


def _samples(
    files: Iterable[_Files], ids: dict[str, int], max_pixels: int, keep: Keep, notes: Notes
) -> Iterator[Sample]:
    for file in files:
        if not keep(file.image_id):
            continue
        root = _parse(file.annotation)
        if root is None:
            notes.skipped["annotation XML is malformed or declares entities"].append(file.image_id)
            continue
        size = annotated_size(root.findtext("size/height"), root.findtext("size/width"))
        image = load_image(
            file.image.read_bytes(),
            file.image_id,
            notes,
            annotated_size=size,
            max_pixels=max_pixels,
        )
        if image is None:
            continue
        objects = [
            Object(
                box=_yxyx(item),
                label=label_id(_text(item, "name"), ids, file.annotation),
                difficult=_text(item, "difficult") == "1",
            )
            for item in root.findall("object")
        ]
        yield make_sample(image, file.image_id, objects, notes, size=size)


def _hint(path: str | pathlib.Path) -> str:
    """Returns a remedy that lists the splits of a VOCdevkit, or "" for another folder."""
    lists = sorted(pathlib.Path(path).glob("*/ImageSets/Main/*.txt"))
    # The lists of one class are named like "aeroplane_train".
    found = [
        f"{f.parents[2].name.removeprefix('VOC')}:{f.stem}" for f in lists if "_" not in f.stem
    ]
    return f", but {path} has the splits {', '.join(found)}: give --splits" if found else ""


def _image_path(stem: pathlib.Path) -> pathlib.Path:
    """Returns the image file with this stem and any known suffix; `stem`.jpg if none exists."""
    suffixes = (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    candidates = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _class_names(folders: Iterable[pathlib.Path]) -> set[str]:
    """Returns the class names of all objects in all annotations of the folders."""
    roots = (_parse(xml) for folder in folders for xml in folder.glob("*.xml"))
    items = (item for root in roots if root is not None for item in root.findall("object"))
    return {_text(item, "name") for item in items} - {""}


def _parse(path: pathlib.Path) -> Element | None:
    """Returns the root element, or None if the XML is malformed or declares entities."""
    try:
        return SafeElementTree.parse(path).getroot()
    except OSError:
        raise
    except Exception:  # damaged XML makes the parser raise many kinds of exception
        return None


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: Element, tag: str) -> float:
    """Returns the number in a child element, or NaN if there is none."""
    try:
        return float(_text(element, tag))
    except ValueError:
        return float("nan")


def _yxyx(item: Element) -> tuple[float, float, float, float]:
    """Returns the box of an object in pixels, as (ymin, xmin, ymax, xmax); NaN if it is missing."""
    box = item.find("bndbox")
    if box is None:
        return (float("nan"),) * 4
    return _number(box, "ymin"), _number(box, "xmin"), _number(box, "ymax"), _number(box, "xmax")
