"""What the exporters share: checks before anything is written, and the sample they verify on."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from ssd_keras.data.sources.shapes import draw_shapes
from ssd_keras.export.agreement import Agreement, Tolerance
from ssd_keras.model import SSD
from ssd_keras.predictions import checked_labels
from ssd_keras.version import __version__

_SAMPLE_SEED = 4


def class_labels(model: keras.Model, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Checks that a model can be exported under these labels; returns the labels.

    Args:
        model: A model of `ssd_vgg16`.
        labels: Class names, or None for those that the model carries.

    Raises:
        ValueError: If they do not fit, a weight is NaN or infinite, or neither the model nor the
            caller names the classes.
    """
    if not isinstance(model, SSD):
        raise ValueError(f"model {model.name!r} is not an SSD: it must be made by ssd_vgg16")
    for layer in model.layers:
        if not all(np.isfinite(values).all() for values in layer.get_weights()):
            raise ValueError(
                f"weights of layer {layer.name!r} are not all finite, so that the model finds "
                "nothing: export a checkpoint from before that"
            )
    labels = model.labels if labels is None else labels
    if labels is None:
        raise ValueError(
            f"labels is None and the model carries no class names: pass {model.num_classes} labels"
        )
    return checked_labels(labels, model.num_classes)


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or a copy that computes in float32 if it was made for mixed precision."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights(model.get_weights())
    return copy


def versions() -> dict[str, str]:
    """Of what made a file, for its description."""
    return {"ssd_keras": __version__, "tensorflow": tf.__version__}


def sample_pictures() -> list[bytes]:
    """Three pictures of the built-in shapes data set, JPEG; the same ones every time."""
    return [sample.image for sample in draw_shapes(3, seed=_SAMPLE_SEED)]


def check_agreement(
    path: str | os.PathLike[str], agreement: Agreement, tolerance: Tolerance
) -> None:
    """Refuses what does not detect as the Keras model does; warns if that cannot be told.

    Raises:
        RuntimeError: If a difference is beyond `tolerance`.
    """
    if agreement.is_empty:
        logging.warning(
            "%s is not verified, %s: run export/verify.py on pictures of your own", path, agreement
        )
    elif tolerance.covers(agreement):
        logging.info("%s agrees with the Keras model: %s", path, agreement)
    else:
        raise RuntimeError(f"{path} does not agree with the Keras model: {agreement}")


def check_free(path: str | os.PathLike[str], overwrite: bool, marker: str) -> Path:
    """Checks that a folder may be written.

    Args:
        path: The folder.
        overwrite: Whether an earlier export there may go.
        marker: A file by which an earlier export is known.

    Raises:
        ValueError: If `path` is a file or holds something else than an earlier export, or an
            earlier export is not to be overwritten.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return path
    if not (path / marker).is_file():
        raise ValueError(f"{path} holds something that is no export: give another folder")
    if not overwrite:
        raise ValueError(f"{path} holds an export already: give another folder, or overwrite it")
    return path
