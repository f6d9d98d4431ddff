"""Detects on image files, and writes annotated images, JSON lines and annotations.

Threads read and write the files, so that the network does not wait for them.
"""

import contextlib
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import UNDECODABLE, load_image
from ssd_keras.detections import Detections
from ssd_keras.files import atomic
from ssd_keras.images import MAX_PIXELS
from ssd_keras.inference.ahead import WriteBehind, read_ahead
from ssd_keras.inference.detector import Detector
from ssd_keras.inference.outputs import (
    COCO_NAME,
    FORMATS,
    COCOWriter,
    json_detections,
    write_crops,
    write_picture,
    write_voc_xml,
    write_yolo_names,
    write_yolo_text,
)
from ssd_keras.progress import batched, progress_bar

JSON_NAME = "detections.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """Result of `detect_files`.

    Attributes:
        num_images: Number of images that were processed.
        num_detections: Number of detections in the JSON.
        unreadable: Files that could not be read or decoded.
    """

    num_images: int
    num_detections: int
    unreadable: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ReadFile:
    """An image file after reading.

    Attributes:
        path: The file.
        pixels: uint8 [H, W, 3] RGB, or None if the file cannot be read or decoded.
        prepared: The image as `Detector.prepare` returns it.
        problem: The reason why `pixels` is None.
    """

    path: Path
    pixels: np.ndarray | None
    prepared: Any = None
    problem: str = ""


def detect_files(
    detector: Detector,
    paths: Sequence[Path],
    out: str | os.PathLike[str],
    *,
    score_threshold: float = 0.6,
    json_threshold: float = 0.01,
    batch_size: int = 8,
    formats: Collection[str] = ("pictures", "jsonl"),
    overwrite: bool = False,
) -> Summary:
    """Detects on image files, and writes an annotated copy of each and `detections.jsonl`.

    Boxes refer to the image as stored: its EXIF orientation is ignored, as in training. A file that
    cannot be decoded, or has too many pixels, is reported on stderr and skipped. If two files have
    the same name, the annotated copy of the second is named `<name>-2`, and so on.

    `detections.jsonl` has one JSON object per image, with these keys:

    - `file`: path of the image file.
    - `picture`: file name of the annotated copy in `out`; missing without `pictures`.
    - `width` and `height`: size of the image in pixels.
    - `detections`: list of objects with `label`, `class_id` (starting at 1), `score`, `box` and
      `box_pixels`. Both boxes are (ymin, xmin, ymax, xmax): `box` as fractions of the image,
      `box_pixels` in pixels.

    The other formats have the detections with a score of at least `score_threshold`:

    - "coco": `annotations.json`. File names are relative to the common folder of all images.
    - "voc": `Annotations/<name>.xml`, with whole pixels.
    - "yolo": `labels/<name>.txt` and `classes.txt`.
    - "crops": `crops/<class>/<name>-<number>.jpg`, the content of each box.

    Args:
        detector: The detector to run.
        paths: The image files, such as those of `find_images`.
        out: Folder to write to; it is created if it is missing.
        score_threshold: Minimum score of a detection in all formats except JSON lines, in [0, 1].
        json_threshold: Minimum score of a detection in the JSON, in [0, 1].
        batch_size: Images per batch.
        formats: Formats to write, from `FORMATS`.
        overwrite: Whether `out` may hold files. Files of the same names are replaced.

    Returns:
        The numbers of images and detections, and the files that were skipped.

    Raises:
        ValueError: If `out` is a file, holds files (without `overwrite`) or contains one of the
            images, a threshold is not in [0, 1], a format is unknown, or `batch_size` is below 1.
    """
    for name, value in (("score_threshold", score_threshold), ("json_threshold", json_threshold)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} (={value}) must be in [0, 1]")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"format {name!r} must be one of {', '.join(FORMATS)}")
    out = Path(out)
    check_out(out, paths, overwrite)
    names = _picture_names(paths)
    root = common_folder(paths)
    unreadable, num_detections = [], 0
    bar = progress_bar(len(paths))
    with contextlib.ExitStack() as stack:
        lines = coco = None
        if "jsonl" in formats:
            path = stack.enter_context(atomic(out / JSON_NAME))
            lines = stack.enter_context(path.open("w", encoding="utf-8"))
        if "coco" in formats:
            coco = COCOWriter(stack.enter_context(atomic(out / COCO_NAME)), detector.labels)
            stack.callback(coco.close)
        if "yolo" in formats:
            write_yolo_names(out, detector.labels)
        write = stack.enter_context(WriteBehind(batch_size))
        in_order = stack.enter_context(WriteBehind(2 * batch_size, threads=1))
        for file, found in detections_of(detector, paths, batch_size):
            bar.add(1)
            if file.pixels is None or found is None:
                bar.finish()
                print(f"warning: {file.path} skipped: {file.problem}", file=sys.stderr)
                unreadable.append(file.path)
                continue
            height, width = file.pixels.shape[:2]
            shown, kept = above(found, score_threshold), above(found, json_threshold)
            num_detections += len(kept["scores"])
            write(_write_image, out, names[file.path], file, shown, detector.labels, formats)
            if coco is not None:
                relative = os.path.relpath(file.path.resolve(), root)
                in_order(coco.add, Path(relative).as_posix(), height, width, shown)
            if lines is not None:
                line = {
                    "file": str(file.path),
                    **({"picture": names[file.path]} if "pictures" in formats else {}),
                    **{"width": width, "height": height},
                }
                in_order(_write_line, lines, line, kept, detector.labels)
    bar.finish()
    return Summary(len(paths) - len(unreadable), num_detections, tuple(unreadable))


def detections_of(
    detector: Detector, paths: Sequence[Path], batch_size: int
) -> Iterator[tuple[ReadFile, Detections | None]]:
    """Reads files in threads and detects on them.

    Args:
        detector: The detector to run.
        paths: The image files.
        batch_size: Images per batch.

    Yields:
        Each file in order, and its detections or None if it cannot be decoded.
    """
    read = functools.partial(read_file, max_pixels=detector.max_pixels, prepare=detector.prepare)
    for batch in batched(read_ahead(read, paths, batch_size), batch_size):
        images = [file.prepared for file in batch if file.pixels is not None]
        found = iter(detector.detect_prepared(images))
        for file in batch:
            yield file, None if file.pixels is None else next(found)


def read_file(
    path: Path,
    max_pixels: int = MAX_PIXELS,
    prepare: Callable[[np.ndarray], Any] = lambda pixels: pixels,
) -> ReadFile:
    """Reads and decodes an image file, and prepares it for a detector.

    Args:
        path: The file.
        max_pixels: Limit for the height times the width of the image.
        prepare: See `Detector.prepare`.

    Returns:
        The pixels, or the reason why there are none. The function raises no error for a file that
        cannot be read or decoded.
    """
    notes = Notes()
    try:
        image = load_image(
            path.read_bytes(), str(path), notes, max_pixels=max_pixels, keep_pixels=True
        )
    except OSError as error:
        return ReadFile(path, None, problem=str(error))
    if image is None or image.pixels is None:
        undecodable = UNDECODABLE in notes.skipped
        reasons = "cannot be decoded" if undecodable else ", ".join(notes.skipped)
        return ReadFile(path, None, problem=reasons)
    return ReadFile(path, image.pixels, prepare(image.pixels))


def check_out(out: Path, paths: Sequence[Path], overwrite: bool) -> None:
    """Checks a folder to write to, before anything is written.

    Args:
        out: The folder. It may be missing.
        paths: The input files.
        overwrite: Whether the folder may contain files.

    Raises:
        ValueError: If `out` is a file, contains an input, or contains files without `overwrite`.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out (={out}) is a file: name a folder")
    if any(path.resolve().parent == out.resolve() for path in paths):
        raise ValueError(f"out (={out}) contains one of the input images: name another folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"out (={out}) is not empty: name another folder, or set overwrite")


def _picture_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Chooses a unique file name for each annotated image: JPEG for JPEG, otherwise PNG."""
    names: dict[Path, str] = {}
    taken = set()
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
        name, copy = f"{path.stem}{suffix}", 2
        while name.lower() in taken:  # some file systems ignore case
            name, copy = f"{path.stem}-{copy}{suffix}", copy + 1
        taken.add(name.lower())
        names[path] = name
    return names


def common_folder(paths: Sequence[Path]) -> str:
    """Returns the deepest folder that contains all files, or "." without files."""
    return os.path.commonpath([path.resolve().parent for path in paths]) if paths else "."


def above(detections: Detections, threshold: float) -> Detections:
    """Returns the detections with a score of at least `threshold`."""
    keep = detections["scores"] >= threshold
    return {name: values[keep] for name, values in detections.items()}


def _write_line(
    lines: IO[str], line: dict[str, Any], kept: Detections, labels: Sequence[str]
) -> None:
    line["detections"] = json_detections(kept, line["height"], line["width"], labels)
    # JSON in ASCII, because a file name may contain bytes that are not valid UTF-8.
    lines.write(json.dumps(line) + "\n")


def _write_image(
    out: Path,
    name: str,
    file: ReadFile,
    shown: Detections,
    labels: Sequence[str],
    formats: Collection[str],
) -> None:
    """Writes the files of one image; `name` is the file name of its annotated copy."""
    assert file.pixels is not None
    stem = Path(name).stem
    if "pictures" in formats:
        write_picture(out / name, file.pixels, shown, labels)
    if "voc" in formats:
        xml = out / "Annotations" / f"{stem}.xml"
        write_voc_xml(xml, file.path.name, file.pixels, shown, labels)
    if "yolo" in formats:
        write_yolo_text(out / "labels" / f"{stem}.txt", shown)
    if "crops" in formats:
        write_crops(out / "crops", stem, file.pixels, shown, labels)
