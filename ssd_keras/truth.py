"""Ground truth for the loss: conversion of all accepted forms, and checks of the values."""

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_SLACK = 1e-3  # a box may exceed the image by this fraction of its side, because of rounding


def ground_truth(boxes: Any, labels: Any) -> tf.Tensor:
    """Joins boxes and labels to the ground truth that `MultiBoxLoss` takes.

    Works for one image and for a batch, eagerly and in `Dataset.map`. The images of a batch may
    have different numbers of objects: as ragged tensors, as lists with one array for each image, or
    padded. A row is padding if the four values of its box are equal: zeros, -1 or any other number
    may fill the rows. A row is also padding if its box has no area and its label is at most 0.

    Args:
        boxes: [G, 4] or [B, G, 4] of any dtype, normalized `yxyx`: (ymin, xmin, ymax, xmax) as
            fractions of the image.
        labels: [G] or [B, G] of any dtype, counted from 1.

    Returns:
        float32 [G, 5] or [B, G, 5], rows (ymin, xmin, ymax, xmax, label). Rows of padding are 0.

    Raises:
        ValueError: If the shapes do not fit together.
        tf.errors.InvalidArgumentError: If a label of an object is not an integer of at least 1, or
            a box is not in [0, 1] or has ymin > ymax or xmin > xmax.
    """
    boxes, labels = (_dense(value, rank) for value, rank in ((boxes, 2), (labels, 1)))
    rank = boxes.shape.rank
    if rank not in (2, 3) or boxes.shape[-1] not in (4, None) or labels.shape.rank != rank - 1:
        raise ValueError(
            f"boxes have shape {boxes.shape} and labels {labels.shape}, but they must be [G, 4] "
            "and [G], or [B, G, 4] and [B, G]"
        )
    truth = tf.concat([tf.ensure_shape(boxes, [None] * (rank - 1) + [4]), labels[..., None]], -1)
    if rank == 2:
        return checked_truth(truth[None])[0]
    return checked_truth(truth)


def as_ground_truth(truth: Any) -> tf.Tensor:
    """Converts any accepted form of ground truth to one tensor.

    Args:
        truth: A tensor or an array [B, G, 5] of any dtype, rows (ymin, xmin, ymax, xmax, label); a
            ragged tensor of such rows; or a dictionary with `boxes` and `labels` in the forms that
            `ground_truth` accepts.

    Returns:
        float32 [B, G, 5].

    Raises:
        ValueError: If a dictionary has other keys.
    """
    if isinstance(truth, Mapping):
        if not {"boxes", "labels"} <= set(truth):
            raise ValueError(
                f"y has the keys {', '.join(map(str, truth))}, but must have boxes and labels"
            )
        boxes, labels = _dense(truth["boxes"], 2), _dense(truth["labels"], 1)
        return tf.concat([boxes, labels[..., None]], axis=-1)
    return _dense(truth, 2)


def checked_truth(truth: tf.Tensor, num_classes: int | None = None) -> tf.Tensor:
    """Checks the values of ground truth, and sets rows of padding to 0.

    The checks run immediately with eager execution, and with each step in a graph. XLA removes
    them.

    Args:
        truth: float32 [B, G, 5], rows (ymin, xmin, ymax, xmax, label).
        num_classes: C; None if it is unknown.

    Returns:
        float32 [B, G, 5].

    Raises:
        tf.errors.InvalidArgumentError: If a label or a box is not valid. The message names the row
            and the rule.
    """
    boxes, label = truth[..., :4], truth[..., 4]
    area = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    point = tf.reduce_all(boxes == boxes[..., :1], axis=-1)  # no default box is matched to it
    real = ~(point | (label <= 0) & ~area)
    known = (label >= 1) & (label <= (num_classes or float("inf"))) & (label == tf.round(label))
    upper = f" to the {num_classes} classes of the predictions" if num_classes else ""
    inside = tf.reduce_all((boxes >= -_SLACK) & (boxes <= 1 + _SLACK), axis=-1)
    ordered = tf.reduce_all(boxes[..., 2:] >= boxes[..., :2], axis=-1)
    rules = {
        f"labels must be from 1{upper}; if yours are counted from 0, add 1": known,
        "boxes must be fractions of the image, ymin, xmin, ymax, xmax in [0, 1]; divide pixels by "
        "its height and width": inside | ~known,
        "boxes must be ymin, xmin, ymax, xmax, with ymin <= ymax and xmin <= xmax": ordered
        | ~known
        | ~inside,
    }
    checks = [_check(sentence, ~real | fine, truth) for sentence, fine in rules.items()]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.where(real[..., None], truth, 0.0)


def _check(sentence: str, fine: tf.Tensor, truth: tf.Tensor) -> Any:
    """Checks that a rule holds for all rows; `fine` is bool [B, G].

    In a graph it returns the assertion. With eager execution it raises the error or returns None.
    """
    flat = tf.pad(tf.reshape(fine, [-1]), [[0, 1]], constant_values=True)  # a batch may be empty
    first = tf.argmin(tf.cast(flat, tf.int32), output_type=tf.int32)
    row = tf.pad(tf.reshape(truth, [-1, 5]), [[0, 1], [0, 0]])[first]
    rows = tf.maximum(tf.shape(fine)[1], 1)
    image, index = first // rows, first % rows
    said = [f"y_true: {sentence}; but row", index, "of image", image, "in the batch is", row]
    if not tf.executing_eagerly():
        return tf.debugging.Assert(tf.reduce_all(fine), said, summarize=5)
    if not tf.reduce_all(fine):
        words = [str(word.numpy() if tf.is_tensor(word) else word) for word in said]
        raise tf.errors.InvalidArgumentError(None, None, " ".join(words))
    return None


def _short(error: tf.errors.InvalidArgumentError) -> tf.errors.InvalidArgumentError:
    """Reduces the message of an error from `_check` to one sentence; returns others unchanged."""
    pattern = r"\[(y_true: .*?)\] \[(\d+)\] \[(.*?)\] \[(\d+)\] \[(.*?)\] (\[.*?\])"
    found = re.search(pattern, str(error), re.DOTALL)
    if found is None:
        return error
    return tf.errors.InvalidArgumentError(None, None, " ".join(found.groups()))


@contextlib.contextmanager
def short_errors() -> Iterator[None]:
    """Context manager that reduces the messages of errors about ground truth to one sentence.

    Keras and TensorFlow add the operations and source lines of the graph to the messages.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: If the block raises it.
    """
    try:
        yield
    except ValueError as error:
        found = re.search(r"ValueError: ((?:y|y_true|y_pred) ha(?:s|ve) .*)", str(error))
        if found is None:
            raise
        raise ValueError(found[1].strip()) from None
    except tf.errors.InvalidArgumentError as error:
        short = _short(error)
        if short is error:
            raise
        raise short from None


def checked_inputs(x: Any, y: Any, num_classes: int) -> Any:
    """Checks ground truth before the training step, for steps that XLA compiles.

    Args:
        x: The images, or a `tf.data.Dataset` of batches, as `fit` takes them.
        y: The ground truth, or None if `x` holds it.
        num_classes: C.

    Returns:
        `x`. If it is a dataset, the returned dataset checks each batch when it is read.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: If `y` is not valid; see `as_ground_truth` and
            `checked_truth`.
    """
    if y is not None:
        checked_truth(as_ground_truth(y), num_classes)
    elif isinstance(x, tf.data.Dataset):

        @tf.autograph.experimental.do_not_convert
        def check(images: Any, truth: Any, *weights: Any) -> tuple[Any, ...]:
            return (images, checked_truth(as_ground_truth(truth), num_classes), *weights)

        return x.map(check, num_parallel_calls=tf.data.AUTOTUNE)
    elif x is not None:
        warnings.warn(
            "wrong labels and boxes cannot be reported in a step that XLA compiles: give a "
            "tf.data.Dataset, or compile with jit_compile=False",
            stacklevel=4,
        )
    return x


def _dense(value: Any, rank: int) -> tf.Tensor:
    """Converts a value to a float32 tensor. Ragged tensors and lists of arrays are padded with 0.

    `rank` is the number of axes of the values of one image.
    """
    if isinstance(value, (list, tuple)) and value and len(np.shape(value[0])) == rank:
        value = tf.ragged.stack([tf.cast(v, tf.float32) for v in value])
    if isinstance(value, tf.RaggedTensor):
        value = value.to_tensor()
    return tf.cast(value, tf.float32)
