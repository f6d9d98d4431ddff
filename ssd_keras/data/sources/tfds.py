"""Reads detection datasets that TensorFlow Datasets has prepared. Nothing is downloaded."""

import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample
from ssd_keras.data.sources.source import Keep, Object, Source, make_sample
from ssd_keras.files import reading
from ssd_keras.images import MAX_PIXELS


def open_tfds(
    path: str | pathlib.Path, name: str, split: str, *, max_pixels: int = MAX_PIXELS
) -> Source:
    """Opens a dataset from a folder in which TensorFlow Datasets (TFDS) has prepared it.

    The features of the dataset must be `image` and one sequence with `bbox` and `label`, as in voc,
    coco and most other detection datasets of TFDS. `is_difficult` and `is_crowd` are used if they
    exist. Crowd regions are left out, and the notes name them.

    Args:
        path: The `data_dir` of TFDS, such as ~/tensorflow_datasets.
        name: Name of the dataset, such as "voc/2007" or "coco/2017". The code that prepared the
            dataset is not needed.
        split: Split in the syntax of TFDS, such as "train+validation" or "test[:100]".
        max_pixels: Limit for the height times the width of an image; larger ones are left out.

    Returns:
        The dataset.

    Raises:
        FileNotFoundError: If the dataset is not prepared in the folder.
        ValueError: If the split does not exist, or the features differ from the above.
    """
    data_dir = pathlib.Path(path)
    with reading(data_dir, f"name (={name!r}) must be a dataset that is prepared there"):
        try:
            builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        except tfds.core.DatasetNotFoundError:
            builder = None
    if builder is None or not builder.info.splits:
        raise FileNotFoundError(
            f"{name!r} is not prepared in {data_dir}: run tfds.builder({name!r}, "
            f"data_dir={str(data_dir)!r}).download_and_prepare() once; it needs the network"
        )
    key = _objects_key(builder.info.features, name)
    label_names = builder.info.features[key].feature["label"].names
    dataset = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    return Source(
        description=f"TFDS {builder.info.full_name} {split}",
        labels=tuple(label_names),
        num_images=int(dataset.cardinality()),
        read=functools.partial(_samples, dataset, key, split, max_pixels),
        notes=Notes(),
    )


def _objects_key(features: Mapping[str, Any], name: str) -> str:
    """Returns the key of the feature that holds the objects."""
    for key, feature in features.items():
        inner = getattr(feature, "feature", None)  # the elements, if it is a sequence
        if (
            isinstance(inner, tfds.features.FeaturesDict)
            and {"bbox", "label"} <= set(inner)
            and isinstance(inner["label"], tfds.features.ClassLabel)
        ):
            return str(key)
    raise ValueError(
        f"{name!r} has the features {sorted(features)}, but none of them is a sequence with a "
        "`bbox` and a class `label`: it is not a detection dataset"
    )


def _samples(
    dataset: tf.data.Dataset, key: str, split: str, max_pixels: int, keep: Keep, notes: Notes
) -> Iterator[Sample]:
    for index, item in enumerate(dataset.as_numpy_iterator()):
        image_id = _image_id(item, f"{split}-{index:06d}")
        if not keep(image_id):
            continue
        image = load_image(item["image"], image_id, notes, max_pixels=max_pixels)
        if image is None:
            continue
        found = item[key]
        unflagged = np.zeros(len(found["label"]), bool)
        difficult, crowd = found.get("is_difficult", unflagged), found.get("is_crowd", unflagged)
        objects = []
        for k, (box, label) in enumerate(zip(found["bbox"].tolist(), found["label"], strict=True)):
            if crowd[k]:
                notes.skipped["crowd region"].append(f"{image_id} object {k + 1}")
            else:
                objects.append(Object(tuple(box), int(label) + 1, bool(difficult[k])))
        yield make_sample(image, image_id, objects, notes, size=(1, 1))


def _image_id(item: dict[str, Any], default: str) -> str:
    """Returns the id or the file name of an image, without suffix; `default` if it has neither."""
    if "image/id" in item:
        return str(item["image/id"])
    if "image/filename" in item:
        return pathlib.PurePath(item["image/filename"].decode()).stem
    return default
