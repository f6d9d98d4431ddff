"""The inputs from which the golden files of the original were made, equal on every machine.

`scripts/referee.py --golden` passes these inputs to the original program and stores its results in
`golden/original`. The numbers come from a hash of integers, because the numbers of a random number
generator may differ between versions.
"""

import pathlib
import zlib

import numpy as np

from ssd_keras.initialization import named_variables
from ssd_keras.weights.caffemodel import caffemodel_arrays
from ssd_keras.weights.conversion import convert
from ssd_keras.weights.projects import find_project
from tests.reference import projects as peer
from tests.tiny import TINY

FOLDER = pathlib.Path(__file__).parent / "golden" / "original"

WIDTH = 1 / 16
OUTPUTS = 3  # with background
IMAGES = 2


def answers(name):
    """Loads results of the original program."""
    return dict(np.load(FOLDER / f"{name}.npz"))


def hashed(name, shape):
    """Returns float32 multiples of 2**-23 in [-1, 1), from the finalizer of MurmurHash3."""
    h = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    return ((h >> np.uint32(8)).astype(np.float32) / np.float32(2**23) - 1).reshape(shape)


def predictions(name, batches=1, classes=OUTPUTS - 1):
    """Float32 [batches * IMAGES, P, 4 + 1 + C], offsets in [-1, 1), logits in [-4, 4)."""
    out = hashed(name, (batches * IMAGES, TINY.num_default_boxes, 5 + classes))
    out[..., 4:] *= 4
    return out


def images(name, count):
    """Float32 [count, 64, 64, 3] of whole numbers 0..255, in blocks of 4 x 4 pixels with noise.

    Without the noise, the activations in a block would be equal. For equal inputs of a maximum,
    Caffe and TensorFlow pass the gradient to different inputs.
    """
    blocks = hashed(name, (count, 16, 16, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.floor(128 + 96 * blocks + 32 * hashed(f"{name} noise", blocks.shape))


def truth(kind):
    """Returns for each image of a batch: boxes [G, 4] `yxyx`, labels [G] and difficult [G]."""
    batch = []
    for image in range(IMAGES):
        count = {"crowded": 20, "empty": 3 * image}.get(kind, 6)
        u = (hashed(f"{kind} {image}", (count, 6)) + 1) / 2
        low, high = u[:, :2] * np.float32(0.8), u[:, :2] * np.float32(0.8) + np.float32(0.05)
        high = np.minimum(high + u[:, 2:4] * np.float32(0.3 if kind == "crowded" else 0.9), 1)
        boxes = np.concatenate([low, high], axis=1)
        if kind == "border":  # cut by the border of the image, as after a crop
            boxes = np.where(
                hashed(f"sides {image}", (count, 4)) > 0, np.float32([0, 0, 1, 1]), boxes
            )
        if kind == "tied":  # coordinates on a grid and equal objects, so that IoUs are equal
            boxes = np.round(boxes * 8) / 8
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + np.float32(1 / 8))
            boxes[1:3] = boxes[:1]
        labels = 1 + (u[:, 4] > 0.5)
        difficult = (u[:, 5] > 0.6) & (kind == "difficult")
        batch.append((boxes.astype(np.float32), labels, difficult))
    return batch


KINDS = ("random", "crowded", "border", "tied", "empty", "difficult")


def padded_truth(kind, use_difficult=True):
    """Returns the result of `truth` in the format of the package, float32 [IMAGES, 20, 5]."""
    out = np.zeros((IMAGES, 20, 5), np.float32)
    for row, (boxes, labels, difficult) in zip(out, truth(kind), strict=True):
        kept = use_difficult | ~difficult
        row[: kept.sum(), :4], row[: kept.sum(), 4] = boxes[kept], labels[kept]
    return out


def write_caffemodel(path, model):
    """Writes weights with Caffe's names and layout, for a model of TINY, WIDTH and OUTPUTS - 1."""
    theirs = {ours: name for name, ours in find_project((), "caffe").tensors.items()}
    layers = {}
    for ours, variable in named_variables(model).items():
        name, kind, shape = theirs[ours], ours.rpartition("/")[2], variable.shape
        values = hashed(name, [shape[i] for i in (3, 2, 0, 1)] if kind == "kernel" else shape)
        if kind == "kernel":  # Caffe's "xavier"
            values *= np.float32(np.sqrt(3 / np.prod(shape[:3])))
        elif kind == "bias":
            values *= np.float32(0.1)
        else:
            values = 20 + 5 * values
        layers.setdefault(name.rpartition("/")[0], []).append(values)
    path.write_bytes(peer.caffemodel(list(layers.items())))


def read_caffemodel(path, model):
    """Loads the file as `load_weights` does; TINY has fewer layers than the released configs."""
    arrays = convert(caffemodel_arrays(path.read_bytes()), find_project((), "caffe"))
    for name, variable in named_variables(model).items():
        variable.assign(arrays[name])


def evaluated():
    """Ground truth and detections of 30 images and 3 classes, in pixels of 500 x 400.

    Returns:
        For each image boxes [G, 4], labels [G], difficult [G]; and boxes, scores, classes.
    """
    found, real = [], []
    for image in range(30):
        u = (hashed(f"objects {image}", (image % 4, 6)) + 1) / 2
        low = u[:, :2] * np.float32(0.6)
        boxes = np.concatenate([low, low + np.float32(0.1) + u[:, 2:4] * np.float32(0.3)], axis=1)
        labels = 1 + np.floor(u[:, 4] * 3).astype(int)
        real.append((boxes, labels, u[:, 5] > 0.8))
        moved = np.concatenate([boxes, boxes, low.repeat(2, axis=1)])
        moved = moved + hashed(f"moves {image}", moved.shape) * np.float32(0.06)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + np.float32(0.05))
        scores = (hashed(f"scores {image}", (len(moved),)) + 1) / 2
        boxes = np.clip(moved, 0, 1)
        found.append({"boxes": boxes, "scores": scores, "classes": np.tile(labels, 3)})
    return real, found


# One image of three objects of classes 1 to 3, for the augmentation; corners in whole pixels.
SAMPLED_HEIGHT, SAMPLED_WIDTH = 300, 400
SAMPLED_BOXES = ((30, 80, 150, 240), (120, 200, 270, 380), (0, 0, 30, 48))

SOLVER_STEPS = 6


def solver_batches():
    """Returns the batches of the solver's test, two for each step."""
    names = KINDS[:4]
    return [
        (images(f"step {k}", IMAGES), padded_truth(names[k % len(names)]))
        for k in range(2 * SOLVER_STEPS)
    ]
