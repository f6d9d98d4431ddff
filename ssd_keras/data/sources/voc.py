"""PASCAL VOC, folders of the same form, and ILSVRC DET: one XML file an image."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml import ElementTree as SafeElementTree

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample
from ssd_keras.data.sources.source import (
    Object,
    Source,
    annotated_size,
    label_id,
    make_sample,
    mix,
    path_inside,
    require_files,
    warn_of_other_size,
)
from ssd_keras.files import read_lines
from ssd_keras.images import SUFFIXES

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
    """One image: its id, its image file and its XML file."""

    image_id: str
    image: pathlib.Path
    annotation: pathlib.Path


def open_voc(path: str | pathlib.Path, splits: str, labels: dict[str, str] | None = None) -> Source:
    """Opens a VOCdevkit, or any folder with Annotations, JPEGImages and ImageSets/Main.

    Coordinates are divided by width and height without a shift by one pixel, as in the original
    (io.cpp, ReadXMLToAnnotatedDatum); unlike there they may be fractions.

    Args:
        path: The folder; for "2007:trainval" the one that holds VOC2007.
        splits: Joined by "+": "2007:trainval+2012:trainval" (folder VOC2007), "mine:train"
            (folder mine) or "train" (`path` itself): ImageSets/Main/train.txt. Empty: every
            annotation in `path`.
        labels: Name in the XML -> class name; by default all names in all annotations, sorted.

    Raises:
        FileNotFoundError: If a folder, a list, an image or an annotation is missing.
        ValueError: If a listed name leads out of the folder. While samples are read: if an
            object's class is not declared.
    """
    files: list[_Files] = []
    notes = Notes()
    folders: dict[pathlib.Path, None] = {}  # in order, each once
    for token in splits.split("+"):
        year, _, split = token.rpartition(":")
        folder = pathlib.Path(path, f"VOC{year}" if year.isdigit() else year)
        annotations = folder / "Annotations"
        if not annotations.is_dir():
            raise FileNotFoundError(f"{annotations} is missing: {folder} is not a VOC folder")
        if split:
            names = read_lines(folder / "ImageSets" / "Main" / f"{split}.txt")
            warn_of_other_size(f"{folder.name}:{split}", len(names), _PUBLISHED_SIZES)
            flagged = all(re.search(r"\s(-1|0|1)$", name) for name in names)
            if names and flagged and not path_inside(annotations, f"{names[0]}.xml").is_file():
                raise ValueError(
                    f"{split}.txt in {folder} is VOC's list of one class, with -1, 0 or 1 behind "
                    f"each image: give the list of images, such as {split.rpartition('_')[2]}"
                )
        else:
            names = sorted(xml.stem for xml in annotations.glob("*.xml"))
            pictures = {image.stem for image in (folder / "JPEGImages").glob("*")}
            for lonely in sorted(pictures - set(names)):
                notes.skipped["image without annotation"].append(lonely)
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
    return _source(f"VOC {pathlib.Path(path).name} {splits}".strip(), files, labels, notes)


def open_ilsvrc_det(path: str | pathlib.Path, splits: str, labels: dict[str, str]) -> Source:
    """Opens ILSVRC DET: the folder ILSVRC with Annotations/DET, Data/DET and ImageSets/DET.

    As in the original (data/ILSVRC2016/create_list.py), images of the training list that have no
    annotation file are left out: they are negatives, and such images train nothing.

    Args:
        path: The folder.
        splits: Names of lists joined by "+", such as "train+val1".
        labels: WordNet id -> class name, the 200 of data/labels/ilsvrc_det.txt.

    Raises:
        FileNotFoundError: If a list or an image is missing.
        ValueError: As for `open_voc`.
    """
    root = pathlib.Path(path)
    files: list[_Files] = []
    notes = Notes()
    for split in splits.split("+"):
        lines = read_lines(root / "ImageSets" / "DET" / f"{split}.txt")
        warn_of_other_size(f"DET:{split}", len(lines), _PUBLISHED_SIZES)
        for line in lines:
            name = line.split()[0]
            subset = "val" if "_val_" in name else "train"
            annotation = path_inside(root / "Annotations" / "DET" / subset, f"{name}.xml")
            if annotation.is_file():
                image = path_inside(root / "Data" / "DET" / subset, f"{name}.JPEG")
                files.append(_Files(name, image, annotation))
            else:
                notes.skipped["image without annotation"].append(name)
    return _source(f"ILSVRC DET {splits}", files, labels, notes)


def _source(description: str, files: list[_Files], labels: dict[str, str], notes: Notes) -> Source:
    require_files(file.annotation for file in files)
    require_files(file.image for file in files)
    files = mix(files, lambda file: file.image_id)
    ids = {name: k for k, name in enumerate(labels, start=1)}
    return Source(
        description, tuple(labels.values()), len(files), _samples(files, ids, notes), notes
    )


def _samples(files: Iterable[_Files], ids: dict[str, int], notes: Notes) -> Iterator[Sample]:
    for file in files:
        root = _parse(file.annotation)
        if root is None:
            notes.skipped["annotation is broken or hostile XML"].append(file.image_id)
            continue
        size = annotated_size(root.findtext("size/height"), root.findtext("size/width"))
        image = load_image(file.image.read_bytes(), file.image_id, notes, annotated_size=size)
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


def _image_path(stem: pathlib.Path) -> pathlib.Path:
    """The image of this name with any known suffix, small or capital; .jpg if there is none."""
    suffixes = (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    candidates = [stem.with_name(stem.name + suffix) for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _class_names(folders: Iterable[pathlib.Path]) -> set[str]:
    roots = (_parse(xml) for folder in folders for xml in folder.glob("*.xml"))
    items = (item for root in roots if root is not None for item in root.findall("object"))
    return {_text(item, "name") for item in items} - {""}


def _parse(path: pathlib.Path) -> Element | None:
    """The root element, or None if the file cannot be read as XML or declares entities."""
    try:
        return SafeElementTree.parse(path).getroot()
    except (ParseError, DefusedXmlException, LookupError, ValueError):  # the last two: its encoding
        return None


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: Element, tag: str) -> float:
    """The number in a tag, NaN if there is none."""
    try:
        return float(_text(element, tag))
    except ValueError:
        return float("nan")


def _yxyx(item: Element) -> tuple[float, float, float, float]:
    """Pixel box of an object."""
    box = item.find("bndbox")
    if box is None:
        return (float("nan"),) * 4
    return _number(box, "ymin"), _number(box, "xmin"), _number(box, "ymax"), _number(box, "xmax")
