"""Reads COCO and other datasets in COCO's JSON format."""

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ssd_keras.class_names import require_unique
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
from ssd_keras.files import read_lines, read_text, reading
from ssd_keras.images import MAX_PIXELS

_PUBLISHED_SIZES = {
    "train2014": 82783,
    "val2014": 40504,
    "valminusminival2014": 35504,
    "minival2014": 5000,
    "train2017": 118287,
    "val2017": 5000,
}
_UNIONS = {"trainval35k": "train2014+valminusminival2014"}
# Required lists of the JSON file -> required fields of their entries -> types of the fields.
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str},
    "annotations": {"image_id": (int, str), "category_id": int},
    "categories": {"id": int, "name": str},
}
_PARTS_OF_VAL2014 = ("minival2014", "valminusminival2014")


@dataclasses.dataclass(frozen=True, slots=True)
class _Image:
    """An image of the JSON file.

    Attributes:
        image_id: Id of the image.
        path: The image file.
        size: (height, width) in pixels, or None if the JSON file does not have them.
        objects: The objects of the image.
    """

    image_id: str
    path: pathlib.Path
    size: tuple[int, int] | None
    objects: list[Object]


def open_coco(
    path: str | pathlib.Path,
    splits: str,
    labels: dict[str, str] | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
) -> Source:
    """Opens COCO, or another dataset in COCO's JSON format.

    Category ids (1 to 90 with gaps in COCO) become label ids without gaps, in the same order. The
    `category_ids` in the card map them back. Crowd regions are left out, and so is the root
    category of Roboflow's exports if it has no objects. The notes name both.

    Args:
        path: The folder. For "train2017" it contains annotations/instances_train2017.json and the
            images in train2017. For "minival2014" and "valminusminival2014" it contains the images
            in val2014 and either annotations/instances_minival2014.json or
            annotations/minival2014.txt, a list of image ids or image names.
        splits: Splits joined by "+". "trainval35k" means "train2014+valminusminival2014". For
            other datasets, "train.json:images" names a JSON file and an image folder in `path`.
        labels: Category name -> class name, in order of the label ids. None uses the category
            names of the JSON file.
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If a JSON file or an image is missing.
        ValueError: If a JSON file does not have COCO's format, an id or a category name occurs
            twice, the categories of two splits differ, a file name is outside the folder, the
            category of an annotation is not declared, or a name in `labels` is not a category.
    """
    root = pathlib.Path(path)
    notes = Notes()
    found: list[_Image] = []
    categories: dict[int, str] = {}
    for split in _UNIONS.get(splits, splits).split("+"):
        json_path, folder, kept_ids = _locate(root, split)
        content = _read(json_path, labels, notes)
        declared = {c["id"]: c["name"] for c in content["categories"]}
        if categories and declared != categories:
            raise ValueError(
                f"{json_path} declares other categories than the splits before it: joined splits "
                "must have equal categories. A root category without objects is left out unless "
                "--labels names it"
            )
        categories = dict(sorted(declared.items()))
        listed = [
            image for image in content["images"] if kept_ids is None or image["id"] in kept_ids
        ]
        warn_if_size_differs(split, len(listed), _PUBLISHED_SIZES)
        labels = {name: name for name in categories.values()} if labels is None else labels
        wanted = {image["id"] for image in listed}
        objects = _objects_by_image(content, wanted, categories, labels, json_path, notes)
        images_of_split = [
            _Image(
                str(image["id"]),
                _image_path(folder, image["file_name"]),
                annotated_size(image.get("height"), image.get("width")),
                objects.get(image["id"], []),
            )
            for image in listed
        ]
        require_files(image.path for image in images_of_split)
        taken = {image.image_id for image in found}
        for image in images_of_split:
            if image.image_id in taken:
                raise ValueError(
                    f"{json_path} has an image with id {image.image_id}, and so has another split: "
                    "prepare each split separately and train on both record sets (--records=a,b)"
                )
        found += images_of_split
    category_ids = {name: category for category, name in categories.items()}
    labels = labels or {}
    undeclared = [name for name in labels if name not in category_ids]
    if undeclared:
        raise ValueError(
            f"class {undeclared[0]!r} of the labels is not among the categories in {path}: correct "
            "the label file"
        )
    return Source(
        description=f"COCO {root.name} {splits}",
        labels=tuple(labels.values()),
        num_images=len(found),
        read=functools.partial(
            _samples, shuffle_by_name(found, lambda image: image.image_id), max_pixels
        ),
        notes=notes,
        category_ids=tuple(category_ids[name] for name in labels),
    )


def _locate(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path, set[int] | None]:
    """Returns the JSON file of a split, its image folder, and the image ids to keep or None."""
    if ":" in split:
        json_name, _, folder = split.partition(":")
        return path_inside(root, json_name), path_inside(root, folder), None
    json_path = root / "annotations" / f"instances_{split}.json"
    if split not in _PARTS_OF_VAL2014:
        return json_path, root / split, None
    id_list = root / "annotations" / f"{split}.txt"
    if json_path.is_file() or not id_list.is_file():
        return json_path, root / "val2014", None
    # A line is "42", or "COCO_val2014_000000000042" as in the original's lists.
    ids = {int(line.rpartition("_")[2]) for line in read_lines(id_list)}
    return json_path.with_name("instances_val2014.json"), root / "val2014", ids


def _image_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the image file of a name in a JSON file. Tools on Windows may write backslashes."""
    path = path_inside(folder, name)
    return path if path.is_file() else path_inside(folder, name.replace("\\", "/"))


def _read(
    json_path: pathlib.Path, labels: dict[str, str] | None, notes: Notes
) -> dict[str, list[dict[str, Any]]]:
    """Reads a JSON file, checks that it has all `_FIELDS`, and removes a root category."""
    with reading(json_path, "download or export it again", fault="is not JSON"):
        content = json.loads(read_text(json_path))
    for key, fields in _FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(
                f"{json_path} has no list {key!r}: it is not ground truth in COCO's format"
            )
        for k, entry in enumerate(entries):
            for name, kind in fields.items():
                value = entry.get(name) if isinstance(entry, dict) else None
                if not isinstance(value, kind):
                    raise ValueError(
                        f"{json_path} has no valid {name!r} (={value!r}) in {key}[{k}]: it is "
                        "not ground truth in COCO's format"
                    )
            if isinstance(entry.get("id"), list | dict):
                raise ValueError(f"{json_path} has a list or an object as id in {key}[{k}]")
    _drop_root_category(content, labels, notes)
    require_unique((c["name"] for c in content["categories"]), json_path)
    for key in ("categories", "annotations"):
        ids = collections.Counter(entry["id"] for entry in content[key] if "id" in entry)
        repeated = [entry_id for entry_id, count in ids.items() if count > 1]
        if repeated:
            raise ValueError(f"{json_path} has id {repeated[0]} twice in {key}: ids must be unique")
    return content


def _drop_root_category(
    content: dict[str, list[dict[str, Any]]], labels: dict[str, str] | None, notes: Notes
) -> None:
    """Removes the root category of Roboflow's exports, which is the parent of the others.

    A category is kept if an object has it, or if `labels` names it and no other category has its
    name.
    """
    used = {annotation["category_id"] for annotation in content["annotations"]}
    for root in list(content["categories"]):
        others = [c for c in content["categories"] if c is not root]
        is_root = root.get("supercategory") == "none" and root["id"] not in used
        is_root &= any(c.get("supercategory") == root["name"] for c in others)
        wanted = labels is not None and root["name"] in labels
        if is_root and not (wanted and root["name"] not in {c["name"] for c in others}):
            content["categories"] = others
            notes.skipped["root category without objects"].append(root["name"])


def _objects_by_image(
    content: dict[str, list[dict[str, Any]]],
    wanted: set[int | str],
    categories: dict[int, str],
    labels: dict[str, str],
    json_path: pathlib.Path,
    notes: Notes,
) -> dict[int | str, list[Object]]:
    """Returns the objects of each wanted image, by image id. Crowd regions are left out."""
    ids = {name: k for k, name in enumerate(labels, start=1)}
    listed = {image["id"] for image in content["images"]}
    objects: dict[int | str, list[Object]] = collections.defaultdict(list)
    unlisted = 0
    for annotation in content["annotations"]:
        name = f"annotation {annotation.get('id')}"
        image_id, category = annotation["image_id"], annotation["category_id"]
        if category not in categories:
            raise ValueError(
                f"{name} in {json_path} has the category id {category}, which is not declared there"
            )
        if image_id not in listed:
            unlisted += 1
            notes.skipped["annotation of an image that is not listed"].append(name)
        elif image_id in wanted and annotation.get("iscrowd"):
            notes.skipped["crowd region"].append(name)
        elif image_id in wanted:
            label = label_id(categories[category], ids, f"{name} in {json_path}")
            objects[image_id].append(Object(_yxyx(annotation), label))
    if unlisted and unlisted == len(content["annotations"]):
        raise ValueError(
            f"{json_path} has no annotation of a listed image: image_id (={image_id!r}) must equal "
            f"the id of an image, which is written as {next(iter(listed), None)!r}"
        )
    return objects


def _yxyx(annotation: dict[str, Any]) -> tuple[float, float, float, float]:
    """Converts COCO's (x, y, width, height) to corners; NaN if they are not four numbers."""
    try:
        x, y, width, height = map(float, annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        return (float("nan"),) * 4
    return y, x, y + height, x + width


def _samples(listed: list[_Image], max_pixels: int, keep: Keep, notes: Notes) -> Iterator[Sample]:
    for item in listed:
        if not keep(item.image_id):
            continue
        image = load_image(
            item.path.read_bytes(),
            item.image_id,
            notes,
            annotated_size=item.size,
            max_pixels=max_pixels,
        )
        if image is not None:
            yield make_sample(image, item.image_id, item.objects, notes, size=item.size)
