"""Shared code of the sources that list images and boxes in one file: csv, cvat, label_studio."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample
from ssd_keras.data.sources.source import (
    Keep,
    Object,
    Source,
    label_id,
    make_sample,
    path_inside,
    shuffle_by_name,
)
from ssd_keras.images import MAX_PIXELS, SUFFIXES

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class ListedImage:
    """An image of an annotation file.

    Attributes:
        name: File name of the image as in the annotation file.
        size: (height, width) in pixels, or None if the file does not have them.
        boxes: (class name, (ymin, xmin, ymax, xmax) in pixels of `size`) of each object.
        where: Place in the annotation file, for error messages.
    """

    name: str
    size: tuple[int, int] | None
    boxes: list[tuple[str, Box]]
    where: str


def locate(path: str | pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Returns the annotation file and the image folder of a split.

    Args:
        path: Folder of the dataset.
        split: "train.csv", or "train.csv:images" with an image folder in `path`. By default the
            images are in `path` or in one of its subfolders.

    Raises:
        FileNotFoundError: If the file or the folder is missing.
        ValueError: If more than one split is named.
    """
    root = pathlib.Path(path)
    if "+" in split:
        raise ValueError(
            f"--splits (={split}) must name one file: prepare each separately, and train on both "
            "record sets (--records=a,b)"
        )
    name, _, folder = split.partition(":")
    annotations, images = path_inside(root, name), path_inside(root, folder or ".")
    if not annotations.is_file():
        raise FileNotFoundError(f"{annotations} is missing: give --splits, the annotation file")
    if not images.is_dir():
        raise FileNotFoundError(f"{images} is missing: it must be the folder of the images")
    return annotations, images


def listed_source(
    description: str,
    folder: pathlib.Path,
    images: Iterable[ListedImage],
    labels: dict[str, str] | None,
    notes: Notes,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Creates a source from the images of an annotation file.

    Images are found by their path in the folder, or else by their file name in any subfolder.

    Args:
        description: Description of the dataset.
        folder: Folder of the images.
        images: The images.
        labels: Name in the annotations -> class name, in order of the label ids. None uses the
            names in the annotations, sorted.
        notes: Receives the names of images without annotation.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If there are no images or no class names, a file name occurs twice in the folder
            or points outside it, or `labels` lacks the class of an object.
    """
    images = list(images)
    files: dict[str, list[pathlib.Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in SUFFIXES:
            files.setdefault(file.name, []).append(file)
    found = [(image, _image_file(image, folder, files)) for image in images]
    if not found:
        raise ValueError(f"{description} has no annotation of an image")
    used = {path for _, path in found}
    for path in sorted(path for paths in files.values() for path in paths if path not in used):
        notes.skipped["image without annotation"].append(path.relative_to(folder).as_posix())
    if labels is None:
        labels = {n: n for n in sorted({name for image in images for name, _ in image.boxes})}
    if not labels:
        raise ValueError(f"{description} has no object: give the class names with --labels")
    ids = {name: k for k, name in enumerate(labels, start=1)}
    for image in images:
        for name, _ in image.boxes:
            label_id(name, ids, image.where)
    ordered = shuffle_by_name(found, lambda item: item[0].name)
    read = functools.partial(_samples, ordered, folder, ids, max_pixels)
    return Source(description, tuple(labels.values()), len(found), read, notes)


def _image_file(
    image: ListedImage, folder: pathlib.Path, files: dict[str, list[pathlib.Path]]
) -> pathlib.Path:
    name = image.name.replace("\\", "/")
    path = path_inside(folder, name)
    if path.is_file():
        return path
    candidates = files.get(pathlib.PurePosixPath(name).name, [])
    if len(candidates) > 1:
        raise ValueError(
            f"{image.where} names the image {image.name!r}, and {folder} has "
            f"{len(candidates)} files of this name: name the subfolder in the annotation"
        )
    if not candidates:
        raise FileNotFoundError(f"{path} is missing: {image.where} names it")
    return candidates[0]


def _samples(
    found: list[tuple[ListedImage, pathlib.Path]],
    folder: pathlib.Path,
    ids: dict[str, int],
    max_pixels: int,
    keep: Keep,
    notes: Notes,
) -> Iterator[Sample]:
    for listed, path in found:
        image_id = path.relative_to(folder).as_posix()
        if not keep(image_id):
            continue
        image = load_image(
            path.read_bytes(), image_id, notes, annotated_size=listed.size, max_pixels=max_pixels
        )
        if image is not None:
            objects = [Object(box, ids[name]) for name, box in listed.boxes]
            yield make_sample(image, image_id, objects, notes, size=listed.size)
