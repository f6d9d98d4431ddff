"""The features of a record, and checks of its ground truth where records are read and written."""

import numpy as np
import tensorflow as tf

_OUTSIDE = 1e-4  # a box may exceed the image by this fraction of its side, because of rounding
REMEDY = "write the record set again with `ssd-keras prepare`"

SIDES = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
_SCALARS = {"encoded": tf.string, "source_id": tf.string, "height": tf.int64, "width": tf.int64}
_VECTORS = {
    "image/object/class/label": tf.int64,
    "image/object/difficult": tf.int64,
    **dict.fromkeys(SIDES, tf.float32),
}
FEATURES = {
    **{f"image/{name}": tf.io.FixedLenFeature([], dtype) for name, dtype in _SCALARS.items()},
    **{
        name: tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
        for name, dtype in _VECTORS.items()
    },
}


def check_ground_truth(
    boxes: np.ndarray, labels: np.ndarray, difficult: np.ndarray, num_classes: int, where: str
) -> None:
    """Checks the ground truth of an image.

    Args:
        boxes: float `[G, 4]`, normalized yxyx.
        labels: int `[G]`, label ids.
        difficult: bool `[G]`.
        num_classes: C, the largest label id.
        where: Place of the image; the message starts with it.

    Raises:
        ValueError: If the numbers of boxes, labels and difficult flags differ, a label id is not in
            1..C, or a box has no area, is not finite or exceeds the image.
    """
    boxes = np.asarray(boxes).reshape(-1, 4)
    counts = len(boxes), len(labels), len(difficult)
    if len(set(counts)) > 1:
        raise ValueError(
            f"{where} has {counts[0]} boxes, {counts[1]} labels and {counts[2]} difficult flags: "
            f"the numbers must be equal; {REMEDY}"
        )
    for label in labels:
        if not 1 <= label <= num_classes:
            raise ValueError(
                f"{where} has label id {label}, but label ids must be from 1 to {num_classes}, the "
                "number of class names"
            )
    # NaN fails every comparison.
    inside = ((boxes >= -_OUTSIDE) & (boxes <= 1 + _OUTSIDE)).all(axis=1)
    valid = inside & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    if not valid.all():
        box = boxes[np.flatnonzero(~valid)[0]].tolist()
        raise ValueError(
            f"{where} has the box {box}, but boxes must be normalized (ymin, xmin, ymax, xmax) in "
            f"[0, 1] with a positive area; {REMEDY}"
        )


def checked_records(path: str | tf.Tensor, num_classes: int) -> tf.data.Dataset:
    """Creates a dataset of the records of one shard, with checks of their ground truth.

    The checks are those of `check_ground_truth`, as graph operations.

    Args:
        path: The shard; a string scalar inside a graph.
        num_classes: C, the largest label id.

    Returns:
        A `tf.data.Dataset` of string scalars, serialized examples. It raises
        `tf.errors.InvalidArgumentError` with the shard and the image at an invalid record.
    """

    @tf.autograph.experimental.do_not_convert
    def checked(serialized: tf.Tensor) -> tf.Tensor:
        example = tf.io.parse_single_example(
            serialized, {name: f for name, f in FEATURES.items() if name != "image/encoded"}
        )
        ymin, xmin, ymax, xmax = (example[side] for side in SIDES)
        labels, image = example["image/object/class/label"], example["image/source_id"]
        counts = tf.stack([tf.size(example[name]) for name in _VECTORS])
        where = ("image ", image, " in ", path)
        message = [tf.strings.join([*where, " has a label or a box that is not valid; ", REMEDY])]
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(counts == counts[0]), message)]
        ):
            sides = tf.stack([ymin, xmin, ymax, xmax])
        valid = (
            (labels >= 1)
            & (labels <= num_classes)
            & (ymin < ymax)
            & (xmin < xmax)
            & tf.reduce_all((sides >= -_OUTSIDE) & (sides <= 1 + _OUTSIDE), axis=0)
        )
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(valid), message)]):
            return tf.identity(serialized)

    return tf.data.TFRecordDataset(path).map(checked)
