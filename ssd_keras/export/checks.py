"""Shared code of the exporters: checks of arguments, and images to verify exported files on."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from ssd_keras.data.sources.shapes import draw_shapes
from ssd_keras.export.agreement import Agreement, Tolerance
from ssd_keras.model import SSD
from ssd_keras.predictions import Predictions, checked_labels
from ssd_keras.version import __version__

_SAMPLE_SEED = 4
_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16 = re.compile(r"\b(avx512_bf16|amx_bf16|bf16)\b")


def class_labels(model: keras.Model, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Checks that a model can be exported, and returns its class names.

    Args:
        model: A model of `ssd_vgg16`.
        labels: Names of the C classes; None for the labels stored in the model.

    Returns:
        The class names.

    Raises:
        ValueError: If `model` is not an SSD, a weight is NaN or infinite, the labels are not C
            valid names, or `labels` is None and the model has no labels.
    """
    if not isinstance(model, SSD):
        raise ValueError(f"model {model.name!r} is not an SSD: it must be made by ssd_vgg16")
    for layer in model.layers:
        if not all(np.isfinite(values).all() for values in layer.get_weights()):
            raise ValueError(
                f"weights of layer {layer.name!r} are not all finite, probably because the "
                "training diverged: export an earlier checkpoint"
            )
    labels = model.labels if labels is None else labels
    if labels is None:
        raise ValueError(
            f"labels is None and the model has no class names: pass {model.num_classes} labels"
        )
    return checked_labels(labels, model.num_classes)


def in_float32(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32.

    Args:
        model: A model of `ssd_vgg16` with any dtype policy.

    Returns:
        `model` itself if all its layers compute in float32, otherwise a copy with dtype policy
        "float32" and the same weights.
    """
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    return _copied(model, lambda layer: "float32")


def in_bfloat16(model: keras.Model) -> keras.Model:
    """Returns a copy of a model whose layers before the heads have weights in bfloat16.

    The heads compute in float32, since their rounding errors would reach the boxes and the scores
    unchanged, and so do the norm of conv4_3 and the sums of the preprocessing.

    Args:
        model: A model of `ssd_vgg16` with any dtype policy.
    """

    def dtype(layer: keras.layers.Layer) -> str:
        is_head = layer.name.endswith(("_offsets", "_logits"))
        in_full = is_head or isinstance(layer, keras.layers.InputLayer | Predictions)
        return "float32" if in_full else "bfloat16"

    return _copied(model, dtype)


def _copied(model: keras.Model, dtype: Callable[[keras.layers.Layer], str]) -> keras.Model:
    """Returns a copy of a model with the same weights; `dtype` gives the policy of each layer."""

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": dtype(layer)})

    copy = keras.models.clone_model(model, clone_function=copied)
    copy.set_weights(model.get_weights())
    return copy


def warn_if_bfloat16_is_slow() -> None:
    """Logs a warning if the processor has no instructions for bfloat16, where Linux says so."""
    if _CPU_INFO.is_file() and not _BFLOAT16.search(_CPU_INFO.read_text(errors="replace")):
        logging.warning(
            "this processor has no instructions for bfloat16 (avx512_bf16, amx_bf16 or bf16 in "
            "%s): precision bfloat16 is slower here than float32",
            _CPU_INFO,
        )


def versions() -> dict[str, str]:
    """Returns the versions of this package and of TensorFlow, to record in an exported file."""
    return {"ssd_keras": __version__, "tensorflow": tf.__version__}


def sample_pictures() -> list[bytes]:
    """Draws three images of the synthetic shapes data set.

    Returns:
        Encoded JPEG files; the same ones in every call.
    """
    return [sample.image for sample in draw_shapes(3, seed=_SAMPLE_SEED)]


def check_agreement(
    path: str | os.PathLike[str], agreement: Agreement, tolerance: Tolerance
) -> None:
    """Raises an error if an exported file differs too much from the Keras model.

    Logs a warning if there was nothing to compare, and the agreement if there is no error.

    Args:
        path: The exported file, for the messages.
        agreement: From `compare` with `tolerance`.
        tolerance: The tolerance of the file.

    Raises:
        RuntimeError: If something was compared and `tolerance` does not cover `agreement`.
    """
    if agreement.is_empty:
        logging.warning(
            "%s is not verified, %s: run ssd-keras verify on your own images", path, agreement
        )
    elif tolerance.covers(agreement):
        logging.info("%s agrees with the Keras model: %s", path, agreement)
    else:
        raise RuntimeError(f"{path} does not agree with the Keras model: {agreement}")


def check_free(path: str | os.PathLike[str], overwrite: bool, marker: str) -> Path:
    """Checks that an export may be written to a folder.

    Args:
        path: The folder. It may be missing or empty.
        overwrite: Whether an earlier export in the folder may be replaced.
        marker: Name of a file that every earlier export contains.

    Returns:
        `path` as a `Path`.

    Raises:
        ValueError: If `path` is a file, if it contains files but no earlier export, or if it
            contains an earlier export and `overwrite` is False.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return path
    if not (path / marker).is_file():
        raise ValueError(f"{path} holds files that are not an export: give another folder")
    if not overwrite:
        raise ValueError(f"{path} already holds an export: give another folder, or overwrite it")
    return path
