"""Detection data sets that TensorFlow Datasets has prepared. Nothing is downloaded."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from ssd_keras.data.card import Notes
from ssd_keras.data.image_files import load_image
from ssd_keras.data.records import Sample
from ssd_keras.data.sources.source import Object, Source, make_sample


def open_tfds(path: str | pathlib.Path, name: str, split: str) -> Source:
    """Opens a data set by name from the folder in which TFDS has prepared it.

    Its features must be `image` and one sequence with `bbox` and `label` (and, where known,
    `is_difficult`, `is_crowd`), as in voc, coco and most of TFDS's detection data sets.

    Args:
        path: TFDS's `data_dir`, such as ~/tensorflow_datasets.
        name: Such as "voc/2007" or "coco/2017"; its code need not be there.
        split: In TFDS's words, such as "train+validation" or "test[:100]".

    Raises:
        FileNotFoundError: If it is not prepared there.
        ValueError: If there is no such split or its features are others.
    """
    data_dir = pathlib.Path(path)
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        builder = None
    if builder is None or not builder.info.splits:
        raise FileNotFoundError(
            f"{name!r} is not prepared in {data_dir}: run tfds.builder({name!r}, "
            f"data_dir={str(data_dir)!r}).download_and_prepare() once, with a network"
        )
    key = _objects_key(builder.info.features, name)
    label_names = builder.info.features[key].feature["label"].names
    dataset = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}, shuffle_files=False
    )
    notes = Notes()
    return Source(
        description=f"TFDS {builder.info.full_name} {split}",
        labels=tuple(label_names),
        num_images=int(dataset.cardinality()),
        samples=_samples(dataset, key, split, notes),
        notes=notes,
    )


def _objects_key(features: Any, name: str) -> str:
    """The feature that holds the objects."""
    for key, feature in features.items():
        inner = getattr(feature, "feature", None)  # of a sequence
        if (
            isinstance(inner, tfds.features.FeaturesDict)
            and {"bbox", "label"} <= set(inner)
            and isinstance(inner["label"], tfds.features.ClassLabel)
        ):
            return str(key)
    raise ValueError(
        f"{name!r} has the features {sorted(features)}, but none of them is a sequence with "
        "`bbox` and `label`, a class: it is not a detection data set that can be read"
    )


def _samples(dataset: tf.data.Dataset, key: str, split: str, notes: Notes) -> Iterator[Sample]:
    for index, item in enumerate(dataset.as_numpy_iterator()):
        image_id = _image_id(item, f"{split}-{index:06d}")
        image = load_image(item["image"], image_id, notes)
        if image is None:
            continue
        found = item[key]
        nothing = np.zeros(len(found["label"]), bool)
        difficult, crowd = found.get("is_difficult", nothing), found.get("is_crowd", nothing)
        objects = []
        for k, (box, label) in enumerate(zip(found["bbox"].tolist(), found["label"], strict=True)):
            if crowd[k]:
                notes.skipped["crowd region"].append(f"{image_id} object {k + 1}")
            else:
                objects.append(Object(tuple(box), int(label) + 1, bool(difficult[k])))
        yield make_sample(image, image_id, objects, notes, size=(1, 1))


def _image_id(item: dict[str, Any], default: str) -> str:
    if "image/id" in item:
        return str(item["image/id"])
    if "image/filename" in item:
        return pathlib.PurePath(item["image/filename"].decode()).stem
    return default
