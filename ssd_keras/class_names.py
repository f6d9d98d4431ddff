"""The classes that released weights were trained on, and which of them are the same."""

import collections
import os
from collections.abc import Iterable
from pathlib import Path

from ssd_keras.files import read_lines, shipped

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

COCO_CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse"),
    *("remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)

LABEL_LISTS = ("voc", "coco", "ilsvrc_det")

# COCO's own ids run from 1 to 90; these were dropped before its first release.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)

# One name for each of the 90 ids, as networks with 91 outputs have them.
COCO_ID_NAMES = tuple(
    dict(zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True)).get(i, f"N/A {i}") for i in range(1, 91)
)

_SYNONYMS = {  # COCO's names of classes that VOC has under another name
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def class_key(name: str) -> str:
    """What the names of one class have in common.

    Case, spaces, `_` and `-` do not count, and VOC's and COCO's words for a thing are the same:
    "Potted plant" and "pottedplant", "tv" and "tvmonitor".
    """
    key = "".join(c for c in name.casefold() if c not in " _-")
    return _SYNONYMS.get(key, key)


def is_unused(name: str) -> bool:
    """Whether a name stands for an id that no object has: "N/A" (torchvision's) or "N/A 12"."""
    return name == "N/A" or name.startswith("N/A ")


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """The same with each "N/A" numbered by its id, so that all names differ."""
    return tuple(f"N/A {i}" if name == "N/A" else name for i, name in enumerate(names, start=1))


def read_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads class names, one a line: `name`, or `name in the annotations<TAB>name to show`.

    Args:
        path: The file; or "voc", "coco" or "ilsvrc_det", lists that come with the package.

    Returns:
        Name in the annotations -> name to show, in the order of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is empty or a name occurs twice.
    """
    if path in LABEL_LISTS:
        path = shipped("labels") / f"{path}.txt"
    lines = [line.partition("\t") for line in read_lines(Path(path).expanduser())]
    if not lines:
        raise ValueError(f"{path} is empty: it must have one class name a line")
    require_unique((name for name, _, _ in lines), path)
    return {name: shown or name for name, _, shown in lines}


def require_unique(names: Iterable[str], where: object) -> None:
    """Raises ValueError naming the first class that occurs twice."""
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(f"{where} has the class {name!r} twice; class names must be unique")
