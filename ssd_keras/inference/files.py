"""Detects on image files, and writes annotated images and JSON lines."""

import dataclasses
import glob
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import EncodedImage, load_image
from ssd_keras.detections import Detections
from ssd_keras.drawing import draw_detections
from ssd_keras.files import atomic
from ssd_keras.images import SUFFIXES, decode_image
from ssd_keras.inference.detector import Detector
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


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Finds image files by names, folders and glob patterns.

    Args:
        inputs: File names with any suffix; folders, which are searched recursively for files with
            a suffix in `images.SUFFIXES`; or glob patterns, in which `**` matches any folders.

    Returns:
        The files in the order of the inputs, each file once.

    Raises:
        ValueError: If `inputs` is empty, or an input matches no file.
    """
    if not inputs:
        raise ValueError("inputs is empty: give image files, folders or glob patterns")
    found: dict[Path, Path] = {}  # by resolved path, in order
    for name in inputs:
        matches = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        paths = [path for match in matches for path in _files(Path(match))]
        if not paths:
            raise ValueError(
                f"input {name!r} matches no image: it must be a file, a folder with images "
                f"({', '.join(SUFFIXES)}) or a glob pattern that matches files"
            )
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def detect_files(
    detector: Detector,
    paths: Sequence[Path],
    out: str | os.PathLike[str],
    *,
    score_threshold: float = 0.5,
    json_threshold: float = 0.01,
    batch_size: int = 8,
    overwrite: bool = False,
) -> Summary:
    """Detects on image files, and writes an annotated copy of each and `detections.jsonl`.

    Boxes refer to the image as stored: its EXIF orientation is ignored, as in training. A file that
    cannot be decoded is reported on stderr and skipped. If two files have the same name, the
    annotated copy of the second is named `<name>-2`, and so on.

    `detections.jsonl` has one JSON object per image, with these keys:

    - `file`: path of the image file.
    - `picture`: file name of the annotated copy in `out`.
    - `width` and `height`: size of the image in pixels.
    - `detections`: list of objects with `label`, `class_id` (starting at 1), `score`, `box` and
      `box_pixels`. Both boxes are (ymin, xmin, ymax, xmax): `box` as fractions of the image,
      `box_pixels` in pixels.

    Args:
        detector: The detector to run.
        paths: The image files, such as those of `find_images`.
        out: Folder to write to; it is created if it is missing.
        score_threshold: Minimum score of a detection in the annotated images, in [0, 1].
        json_threshold: Minimum score of a detection in the JSON, in [0, 1].
        batch_size: Images per batch.
        overwrite: Whether `out` may hold files. Files of the same names are replaced.

    Returns:
        The numbers of images and detections, and the files that were skipped.

    Raises:
        ValueError: If `out` is a file, holds files (without `overwrite`) or contains one of the
            images, a threshold is not in [0, 1], or `batch_size` is below 1.
    """
    for name, value in (("score_threshold", score_threshold), ("json_threshold", json_threshold)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} (={value}) must be in [0, 1]")
    out = Path(out)
    _check_folder(out, paths, overwrite)
    names = _picture_names(paths)
    unreadable, num_detections = [], 0
    bar = progress_bar(len(paths))
    with atomic(out / JSON_NAME) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for batch in batched(paths, batch_size):
            images = {path: image for path in batch if (image := _read(path)) is not None}
            unreadable += [path for path in batch if path not in images]
            found = detector.detect([image.data for image in images.values()]) if images else []
            for (path, image), detections in zip(images.items(), found, strict=True):
                _write_picture(
                    out / names[path], image, _above(detections, score_threshold), detector.labels
                )
                kept = _above(detections, json_threshold)
                num_detections += len(kept["scores"])
                line = {
                    "file": str(path),
                    "picture": names[path],
                    "width": image.width,
                    "height": image.height,
                    "detections": _as_json(kept, image, detector.labels),
                }
                # JSON in ASCII, because a file name may hold bytes that are not valid UTF-8.
                lines.write(json.dumps(line) + "\n")
            bar.add(len(batch))
    return Summary(len(paths) - len(unreadable), num_detections, tuple(unreadable))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return [path]


def _check_folder(out: Path, paths: Sequence[Path], overwrite: bool) -> None:
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


def _read(path: Path) -> EncodedImage | None:
    try:
        image = load_image(path.read_bytes(), str(path), Notes())
        problem = "cannot be decoded"
    except OSError as error:
        image, problem = None, str(error)
    if image is None:
        print(f"warning: {path} skipped: {problem}", file=sys.stderr)
    return image


def _above(detections: Detections, threshold: float) -> Detections:
    keep = detections["scores"] >= threshold
    return {name: values[keep] for name, values in detections.items()}


def _write_picture(
    path: Path, image: EncodedImage, shown: Detections, labels: Sequence[str]
) -> None:
    pixels = decode_image(image.data).numpy()
    picture = draw_detections(pixels, shown["boxes"], shown["classes"], labels, shown["scores"])
    with atomic(path) as temporary:
        picture.save(temporary, quality=95)


def _as_json(
    detections: Detections, image: EncodedImage, labels: Sequence[str]
) -> list[dict[str, Any]]:
    size = np.array([image.height, image.width] * 2)
    return [
        {
            "label": labels[class_id - 1],
            "class_id": int(class_id),
            "score": round(float(score), 6),
            "box": [round(side, 6) for side in box.tolist()],
            "box_pixels": [round(side, 2) for side in (box * size).tolist()],
        }
        for box, class_id, score in zip(
            *(detections[name] for name in ("boxes", "classes", "scores")), strict=True
        )
    ]
