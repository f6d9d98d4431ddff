"""Writes the original's results for the inputs of `tests/golden_inputs.py`, for the tests."""

import functools
import pathlib

import numpy as np
import referee_core as core
import referee_data as data
from PIL import Image
from referee_nets import inputs, network
from referee_original import Original, caffe_images, our_offsets

from ssd_keras.config import CONFIGS
from ssd_keras.data.records import Sample
from ssd_keras.model import ssd_vgg16
from tests import golden_inputs as golden
from tests.tiny import TINY


def write(original: Original, folder: pathlib.Path, convert: pathlib.Path | None) -> None:
    """Writes the golden files.

    Args:
        original: The driver.
        folder: Folder of the golden files.
        convert: The original's convert_annoset. Without it, the file of the augmentation
            (`samples.npz`) is not written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "default_boxes": _boxes,
        "losses": _losses,
        "detections": _detections,
        "network": _network,
        "solver": _solver,
        "evaluation": _evaluation,
    }
    if convert:
        files["samples"] = functools.partial(_samples, convert=convert)
    for name, make in files.items():
        np.savez_compressed(folder / f"{name}.npz", **make(original))


def _boxes(original: Original) -> dict[str, np.ndarray]:
    """Returns for each map ymin, ymax of the rows and xmin, xmax of the columns, [size, A, 2]."""
    out = {}
    for name, config in CONFIGS.items():
        boxes, start = core.original_boxes(original, config), 0
        for m in config.feature_maps:
            count = m.size**2 * m.boxes_per_location
            part = boxes[start : start + count].reshape(m.size, m.size, -1, 4)
            start += count
            y, x = part[:, 0, :, ::2], part[0, :, :, 1::2]
            assert (part[..., ::2] == y[:, None]).all()
            assert (part[..., 1::2] == x[None]).all()
            out |= {f"{name}/{m.name}/y": y, f"{name}/{m.name}/x": x}
    return out


def _losses(original: Original) -> dict[str, np.ndarray]:
    out = {}
    cases = [(kind, True) for kind in golden.KINDS] + [("difficult", False)]
    for kind, keep in cases:
        batches = [(golden.truth(kind), golden.predictions(kind))]
        (((loss, gradient), _),) = core.losses(original, TINY, batches, keep)
        name = kind if keep else f"{kind}_left_out"
        taking_part = np.flatnonzero(np.abs(gradient).sum(axis=-1).ravel())
        out[f"{name}/loss"] = np.float32(loss)
        out[f"{name}/boxes"] = taking_part.astype(np.int16)
        out[f"{name}/gradient"] = gradient.reshape(-1, gradient.shape[-1])[taking_part]
    return out


def _detections(original: Original) -> dict[str, np.ndarray]:
    found = core.original_detections(original, TINY, golden.predictions("detections"))
    return {f"{i}/{name}": v for i, image in enumerate(found) for name, v in image.items()}


def _network(original: Original) -> dict[str, np.ndarray]:
    original.clear()
    size, images = TINY.image_size, golden.images("network", golden.IMAGES)
    weights = original.folder / "start.caffemodel"
    golden.write_caffemodel(weights, ssd_vgg16(TINY, golden.OUTPUTS - 1, width=golden.WIDTH))
    text = inputs(data=(golden.IMAGES, 3, size, size))
    path = original.net("tiny", text + network(TINY, golden.OUTPUTS, golden.WIDTH))
    original.write("data", caffe_images(images))
    original.call("net", path, original.folder, 1, "TEST", weights, "mbox_loc,mbox_conf")
    logits = original.read("mbox_conf").reshape(golden.IMAGES, -1, golden.OUTPUTS)
    return {"offsets": our_offsets(original.read("mbox_loc")), "logits": logits}


def _solver(original: Original) -> dict[str, np.ndarray]:
    """Returns the losses and, for each variable, the size of its change and 8 final values."""
    weights = original.folder / "start.caffemodel"
    golden.write_caffemodel(weights, ssd_vgg16(TINY, golden.OUTPUTS - 1, width=golden.WIDTH))
    with core.with_original_gradient():
        values, before, theirs, ours = core.solve(
            original, TINY, golden.OUTPUTS, golden.solver_batches(), golden.WIDTH, weights,
            lambda model, path, _: golden.read_caffemodel(path, model),
        )  # fmt: skip
    ways = {path: np.linalg.norm(end - before[path]) for path, end in theirs.items()}
    apart = max(np.linalg.norm(ours[path] - theirs[path]) / ways[path] for path in ways)
    print("golden solver: losses", np.abs(values[:, 0] / values[:, 1] - 1).max(), "weights", apart)
    out = {"losses": values[:, 0].astype(np.float32)}
    for path, end in theirs.items():
        out[f"{path}/way"] = np.float32(np.linalg.norm(end - before[path]))
        out[f"{path}/first"] = end.ravel()[:8]
    return out


def _evaluation(original: Original) -> dict[str, np.ndarray]:
    real, found = golden.evaluated()
    truth = [Sample(b"", str(i), 400, 500, *objects) for i, objects in enumerate(real)]
    return {"ap": data.original_evaluation(original, truth, found, 3)}


def _samples(original: Original, convert: pathlib.Path, count: int = 4000) -> dict[str, np.ndarray]:
    """Returns for each class whether a sample keeps its object, and the boxes in 1 / 65535."""
    height, width, voc = golden.SAMPLED_HEIGHT, golden.SAMPLED_WIDTH, original.folder / "voc"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / name).mkdir(parents=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(voc / "JPEGImages/1.jpg")
    (voc / "ImageSets/Main/train.txt").write_text("1\n")
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{box[1]}</xmin>"
        f"<ymin>{box[0]}</ymin><xmax>{box[3]}</xmax><ymax>{box[2]}</ymax></bndbox></object>"
        for name, box in zip("abc", golden.SAMPLED_BOXES, strict=True)
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    (voc / "Annotations/1.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    lmdb, label_map = data.make_database(voc, "train", convert, "abc", original.folder)
    path, text = original.net("data", data.data(32, str(lmdb), str(label_map))), "stats.txt"
    original.call("stats", path, original.folder / text, count, 1)
    out = {}
    lines = (original.folder / text).read_text().splitlines()
    rows = [np.array(line.split(), float)[7:].reshape(-1, 8) for line in lines]
    for label in (1, 2, 3):
        found = [r[(r[:, 0] >= 0) & (r[:, 1] == label)][:, [4, 3, 6, 5]] for r in rows]
        out[f"{label}/left"] = np.array([len(boxes) for boxes in found], bool)
        out[f"{label}/boxes"] = np.round(np.concatenate(found) * 65535).astype(np.uint16)
    return out
