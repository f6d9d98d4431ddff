"""COCO, and any data set in its JSON form."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ssd_keras.class_names import require_unique
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
from ssd_keras.files import read_lines, read_text

_PUBLISHED_SIZES = {
    "train2014": 82783,
    "val2014": 40504,
    "valminusminival2014": 35504,
    "minival2014": 5000,
    "train2017": 118287,
    "val2017": 5000,
}
_UNIONS = {"trainval35k": "train2014+valminusminival2014"}
# What is read of each entry, and as what.
_FIELDS: dict[str, dict[str, Any]] = {
    "images": {"id": (int, str), "file_name": str},
    "annotations": {"image_id": (int, str), "category_id": int},  # and perhaps "id"
    "categories": {"id": int, "name": str},
}
_PARTS_OF_VAL2014 = ("minival2014", "valminusminival2014")


@dataclasses.dataclass(frozen=True, slots=True)
class _Image:
    """A listed image: its id, its file, (height, width) if they are told, and its objects."""

    image_id: str
    path: pathlib.Path
    size: tuple[int, int] | None
    objects: list[Object]


def open_coco(
    path: str | pathlib.Path, splits: str, labels: dict[str, str] | None = None
) -> Source:
    """Opens COCO, or a data set of one's own in COCO's JSON form.

    Category ids (1 to 90 with gaps in COCO) become label ids without gaps, in the order of the
    ids; the card's `category_ids` are the way back. Crowd regions are dropped and noted.

    Args:
        path: The folder. For "train2017" it holds annotations/instances_train2017.json and
            train2017. For "minival2014" and "valminusminival2014" it holds val2014 and either
            annotations/instances_minival2014.json or a list of image ids or names,
            annotations/minival2014.txt.
        splits: Joined by "+"; "trainval35k" stands for "train2014+valminusminival2014". For other
            names "train.json:images": a JSON file and an image folder, both inside `path`.
        labels: Category name -> class name, giving the order; by default those of the JSON file.

    Raises:
        FileNotFoundError: If a JSON file or an image is missing.
        ValueError: If a JSON file is not COCO's, ids or category names repeat, the splits'
            categories differ, a file name leads out of the folder, or an annotation's category is
            not declared.
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
                f"{json_path} declares other categories than the splits before it (one above the "
                "others that no object has does not count: name the classes with --labels)"
            )
        categories = dict(sorted(declared.items()))
        listed = [i for i in content["images"] if kept_ids is None or i["id"] in kept_ids]
        warn_of_other_size(split, len(listed), _PUBLISHED_SIZES)
        labels = {name: name for name in categories.values()} if labels is None else labels
        wanted = {image["id"] for image in listed}
        objects = _by_image(content, wanted, categories, labels, json_path, notes)
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
                    f"{json_path} numbers an image {image.image_id}, as a split before it does: "
                    "prepare each split by itself and train on both record sets, --records=a,b"
                )
        found += images_of_split
    category_ids = {name: category for category, name in categories.items()}
    labels = labels or {}
    undeclared = [name for name in labels if name not in category_ids]
    if undeclared:
        raise ValueError(f"class {undeclared[0]!r} is not among the categories of {path}")
    return Source(
        description=f"COCO {root.name} {splits}",
        labels=tuple(labels.values()),
        num_images=len(found),
        samples=_samples(mix(found, lambda image: image.image_id), notes),
        notes=notes,
        category_ids=tuple(category_ids[name] for name in labels),
    )


def _locate(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path, set[int] | None]:
    """The JSON file and the image folder of a split, and the ids to keep of them (None: all)."""
    if ":" in split:
        json_name, _, folder = split.partition(":")
        return path_inside(root, json_name), path_inside(root, folder), None
    json_path = root / "annotations" / f"instances_{split}.json"
    if split not in _PARTS_OF_VAL2014:
        return json_path, root / split, None
    id_list = root / "annotations" / f"{split}.txt"
    if json_path.is_file() or not id_list.is_file():
        return json_path, root / "val2014", None
    # A line is "42" or, in the original's lists, "COCO_val2014_000000000042".
    ids = {int(line.rpartition("_")[2]) for line in read_lines(id_list)}
    return json_path.with_name("instances_val2014.json"), root / "val2014", ids


def _image_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file of a name in the JSON file; on Windows some tools write it with backslashes."""
    path = path_inside(folder, name)
    return path if path.is_file() else path_inside(folder, name.replace("\\", "/"))


def _read(
    json_path: pathlib.Path, labels: dict[str, str] | None, notes: Notes
) -> dict[str, list[dict[str, Any]]]:
    """The JSON file's content, which has all of `_FIELDS`, without a root of the categories."""
    try:
        content = json.loads(read_text(json_path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{json_path} is not JSON: {error}") from error
    for key, fields in _FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"{json_path} has no list {key!r}: it is not COCO's ground truth")
        for k, entry in enumerate(entries):
            for name, kind in fields.items():
                value = entry.get(name) if isinstance(entry, dict) else None
                if not isinstance(value, kind):
                    raise ValueError(
                        f"{json_path} has no usable {name!r} (={value!r}) in {key}[{k}]: it is "
                        "not COCO's ground truth"
                    )
    _drop_root(content, labels, notes)
    require_unique((c["name"] for c in content["categories"]), json_path)
    for key in ("categories", "annotations"):
        ids = collections.Counter(entry["id"] for entry in content[key] if "id" in entry)
        repeated = [entry_id for entry_id, count in ids.items() if count > 1]
        if repeated:
            raise ValueError(f"{json_path} has id {repeated[0]} twice in {key}: ids must be unique")
    return content


def _drop_root(
    content: dict[str, list[dict[str, Any]]], labels: dict[str, str] | None, notes: Notes
) -> None:
    """Removes the category that Roboflow puts above all others and that no object has."""
    used = {annotation["category_id"] for annotation in content["annotations"]}
    for root in list(content["categories"]):
        others = [c for c in content["categories"] if c is not root]
        is_root = root.get("supercategory") == "none" and root["id"] not in used
        is_root &= any(c.get("supercategory") == root["name"] for c in others)
        asked_for = labels is not None and root["name"] in labels
        if is_root and not (asked_for and root["name"] not in {c["name"] for c in others}):
            content["categories"] = others
            notes.skipped["category above the others, without objects"].append(root["name"])


def _by_image(
    content: dict[str, list[dict[str, Any]]],
    wanted: set[int | str],
    categories: dict[int, str],
    labels: dict[str, str],
    json_path: pathlib.Path,
    notes: Notes,
) -> dict[int | str, list[Object]]:
    """Image id -> its objects, without crowd regions, for the image ids `wanted`."""
    ids = {name: k for k, name in enumerate(labels, start=1)}
    listed = {image["id"] for image in content["images"]}
    objects: dict[int | str, list[Object]] = collections.defaultdict(list)
    lost = 0
    for annotation in content["annotations"]:
        name = f"annotation {annotation.get('id')}"
        image_id, category = annotation["image_id"], annotation["category_id"]
        if category not in categories:
            raise ValueError(
                f"{name} in {json_path} has the category id {category}, which is not declared there"
            )
        if image_id not in listed:
            lost += 1
            notes.skipped["annotation of an image that is not listed"].append(name)
        elif image_id in wanted and annotation.get("iscrowd"):
            notes.skipped["crowd region"].append(name)
        elif image_id in wanted:
            label = label_id(categories[category], ids, f"{name} in {json_path}")
            objects[image_id].append(Object(_yxyx(annotation), label))
    if lost and lost == len(content["annotations"]):
        raise ValueError(
            f"{json_path} lists no image that has annotations: image_id (={image_id!r}) must be "
            f"the id of one, and be written as there: {next(iter(listed), None)!r}"
        )
    return objects


def _yxyx(annotation: dict[str, Any]) -> tuple[float, float, float, float]:
    """COCO's (x, y, width, height) as corners; NaN if it is anything else."""
    try:
        x, y, width, height = map(float, annotation["bbox"])
    except (KeyError, TypeError, ValueError):
        return (float("nan"),) * 4
    return y, x, y + height, x + width


def _samples(listed: list[_Image], notes: Notes) -> Iterator[Sample]:
    for item in listed:
        image = load_image(item.path.read_bytes(), item.image_id, notes, annotated_size=item.size)
        if image is not None:
            yield make_sample(image, item.image_id, item.objects, notes, size=item.size)
