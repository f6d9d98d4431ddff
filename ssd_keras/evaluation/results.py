"""Writes detections in the formats that the VOC and COCO evaluation servers take."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ssd_keras.data.records import Sample
from ssd_keras.detections import Detections
from ssd_keras.evaluation.coco import coco_results
from ssd_keras.evaluation.inputs import pixel_boxes
from ssd_keras.files import atomic

Pair = tuple[Detections, Sample]


def with_voc_results(
    pairs: Iterable[Pair],
    folder: str | os.PathLike[str],
    labels: Sequence[str],
    split: str = "test",
) -> Iterator[Pair]:
    """Writes `comp4_det_<split>_<class>.txt` files while it yields the pairs unchanged.

    Each line is `image score xmin ymin xmax ymax`. Coordinates are in pixels and start at 1 like
    VOC's annotations, which `open_voc` does not shift. The files are complete and visible only
    after the last pair.

    Args:
        pairs: The detections and the sample of each image.
        folder: Folder to write to. Other files in it stay.
        labels: Class names; `labels[0]` is class 1.
        split: The split in the file names.

    Yields:
        The pairs.

    Raises:
        ValueError: If a class name cannot be part of a file name, or an image id has spaces.
        OSError: If a file cannot be written.

    Source: section 3.1 of the development kit of VOC2007, "Detection task".
    """
    for label in labels:
        if "/" in label or "\\" in label or label in (".", ".."):
            raise ValueError(f"class {label!r} cannot be part of a file name: rename it")
    with contextlib.ExitStack() as stack:
        paths = [
            stack.enter_context(atomic(Path(folder, f"comp4_det_{split}_{label}.txt")))
            for label in labels
        ]
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for found, truth in pairs:
            if len(truth.image_id.split()) != 1:
                raise ValueError(f"image id {truth.image_id!r} must be one word in VOC's format")
            boxes = pixel_boxes(found["boxes"], truth)
            for box, class_id, score in zip(boxes, found["classes"], found["scores"], strict=True):
                ymin, xmin, ymax, xmax = box
                files[int(class_id) - 1].write(
                    f"{truth.image_id} {score:.6f} {xmin:.3f} {ymin:.3f} {xmax:.3f} {ymax:.3f}\n"
                )
            yield found, truth


def with_coco_results(
    pairs: Iterable[Pair], path: str | os.PathLike[str], category_ids: Sequence[int]
) -> Iterator[Pair]:
    """Writes a file in the COCO results format while it yields the pairs unchanged.

    Args:
        pairs: The detections and the sample of each image.
        path: The JSON file. It is complete and visible only after the last pair.
        category_ids: The COCO category id of each label.

    Yields:
        The pairs.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = ""
        for found, truth in pairs:
            for item in coco_results([found], [truth], category_ids):
                file.write(f"{separator}\n{json.dumps(item)}")
                separator = ","
            yield found, truth
        file.write("\n]\n")
