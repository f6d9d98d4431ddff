"""Class names of released weights, and synonyms among them."""

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

LABEL_LISTS = ("voc", "coco", "ilsvrc_det")  # the lists that come with the package

# COCO's category ids are the numbers from 1 to 90 except these, which COCO dropped before its first
# release.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_CATEGORY_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED_IDS)

# One name for each id from 1 to 90: the classes of networks with 91 outputs.
COCO_ID_NAMES = tuple(
    dict(zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True)).get(i, f"N/A {i}") for i in range(1, 91)
)

_SYNONYMS = {  # COCO's name -> VOC's name of the same class
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "tvmonitor",
}


def class_key(name: str) -> str:
    """Returns a key that is the same for all names of one class.

    The key ignores case, spaces, `_` and `-`, and replaces COCO's synonyms by VOC's names. Thus
    "Potted plant" and "pottedplant" have the same key, and so have "tv" and "tvmonitor".
    """
    key = "".join(c for c in name.casefold() if c not in " _-")
    return _SYNONYMS.get(key, key)


def is_unused(name: str) -> bool:
    """Returns whether a name marks an id that COCO does not use: "N/A" or "N/A 12"."""
    return name == "N/A" or name.startswith("N/A ")


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names that differ: each "N/A", which torchvision repeats, gets its id appended."""
    return tuple(f"N/A {i}" if name == "N/A" else name for i, name in enumerate(names, start=1))


def read_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads class names from a text file with one class on each line.

    A line is `name`, or `name in the annotations<TAB>name to show`. Empty lines are skipped.

    Args:
        path: The file, or "voc", "coco" or "ilsvrc_det" for a list that comes with the package.

    Returns:
        Name in the annotations -> name to show, in the order of the file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not UTF-8, is empty, or has a name in the annotations twice.
    """
    if path in LABEL_LISTS:
        path = shipped("labels") / f"{path}.txt"
    lines = [line.partition("\t") for line in read_lines(Path(path).expanduser())]
    if not lines:
        raise ValueError(f"{path} is empty: it must have one class name on each line")
    require_unique((name for name, _, _ in lines), path)
    return {name: shown or name for name, _, shown in lines}


def require_unique(names: Iterable[str], where: object) -> None:
    """Raises ValueError if a class name occurs twice. The message starts with `where`."""
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(f"{where} has the class {name!r} twice: class names must be unique")
