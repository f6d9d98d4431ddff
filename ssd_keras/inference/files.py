"""Detection on image files: which files are meant, and the pictures and JSON that come out."""

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
from ssd_keras.drawing import draw_detections
from ssd_keras.files import atomic
from ssd_keras.images import SUFFIXES, decode_image
from ssd_keras.inference.detector import Detector
from ssd_keras.progress import batched, progress_bar

JSON_NAME = "detections.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What `detect_files` did: images and detections written, and the files it could not read."""

    num_images: int
    num_detections: int
    unreadable: tuple[Path, ...]


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The image files that are meant, each once.

    Args:
        inputs: Files, whatever their names end in; folders, searched with all below them for
            `images.SUFFIXES`; glob patterns, in which `**` stands for any folders.

    Raises:
        ValueError: If an input gives no image, or there are no inputs.
    """
    if not inputs:
        raise ValueError("inputs is empty: name image files, folders or glob patterns")
    found: dict[Path, Path] = {}  # by resolved path, in order
    for name in inputs:
        matches = [name] if os.path.exists(name) else sorted(glob.glob(name, recursive=True))
        paths = [path for match in matches for path in _files(Path(match))]
        if not paths:
            raise ValueError(
                f"input {name!r} gives no image: it must be a file, a folder that holds one "
                f"({', '.join(SUFFIXES)}) or a pattern that matches one"
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
    """Detects on image files; writes a picture with boxes for each, and `detections.jsonl`.

    Pixels count as stored: the EXIF orientation is ignored, as in training. A file that does not
    decode is named on stderr and left out. If two files have the same name, the picture of the
    second is called `<name>-2`, and so on.

    A line of the JSON is `{"file", "picture", "width", "height", "detections"}`, and a detection
    `{"label", "class_id", "score", "box", "box_pixels"}`, the boxes (ymin, xmin, ymax, xmax).

    Args:
        detector: What detects.
        paths: Of the images, as `find_images` gives them.
        out: Folder to write to; made if it is missing.
        score_threshold: Pictures show detections of at least this score.
        json_threshold: The JSON lists detections of at least this score.
        batch_size: Images at once.
        overwrite: Allow `out` to hold something; files of the same names are replaced.

    Raises:
        ValueError: If `out` holds something, is a file or holds one of the images, or a threshold
            is not in [0, 1].
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
                # In ASCII: the names of files are any bytes.
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
        raise ValueError(f"out (={out}) holds one of the inputs: name another folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"out (={out}) already holds something: name another folder or overwrite")


def _picture_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name of its own for each picture: JPEG for JPEG, PNG for all else."""
    names: dict[Path, str] = {}
    taken = set()
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg") else ".png"
        name, copy = f"{path.stem}{suffix}", 2
        while name.lower() in taken:  # some file systems do not tell A from a
            name, copy = f"{path.stem}-{copy}{suffix}", copy + 1
        taken.add(name.lower())
        names[path] = name
    return names


def _read(path: Path) -> EncodedImage | None:
    try:
        image = load_image(path.read_bytes(), str(path), Notes())
        problem = "does not decode"
    except OSError as error:
        image, problem = None, str(error)
    if image is None:
        print(f"warning: {path} left out: {problem}", file=sys.stderr)
    return image


def _above(detections: dict[str, np.ndarray], threshold: float) -> dict[str, np.ndarray]:
    keep = detections["scores"] >= threshold
    return {name: values[keep] for name, values in detections.items()}


def _write_picture(
    path: Path, image: EncodedImage, shown: dict[str, np.ndarray], labels: Sequence[str]
) -> None:
    pixels = decode_image(image.data).numpy()
    picture = draw_detections(pixels, shown["boxes"], shown["classes"], labels, shown["scores"])
    with atomic(path) as temporary:
        picture.save(temporary, quality=95)


def _as_json(
    detections: dict[str, np.ndarray], image: EncodedImage, labels: Sequence[str]
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
