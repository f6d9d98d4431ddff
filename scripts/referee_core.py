"""Comparisons of boxes, loss, network, detections and solver, for `referee.py`."""

import functools
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from referee_nets import DETECTION, LOSS, inputs, network
from referee_original import (
    Original,
    caffe_images,
    caffe_label,
    caffe_offsets,
    label_blob,
    our_offsets,
    prior_blob,
)

from ssd_keras.config import CONFIGS, SSDConfig
from ssd_keras.detections import DetectionDecoder, unpad
from ssd_keras.layers import L2Normalization
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16
from ssd_keras.tiling import default_boxes
from ssd_keras.training.optimizer import CaffeSGD, Schedule
from ssd_keras.weights.load import load_weights
from tests.reference.normalization import call_with_original_gradient

Row = tuple[str, str, str]  # name of the comparison, inputs, result

KINDS = ("random", "crowded", "border", "grid", "empty", "difficult")


def original_boxes(original: Original, config: SSDConfig) -> np.ndarray:
    """Returns the output of the original's PriorBox layers as `yxyx`, float32 [P, 4]."""
    size = config.image_size
    path = original.net("boxes", inputs(data=(1, 3, size, size)) + network(config, 2, 0.01))
    original.write("data", np.zeros((1, 3, size, size)))
    original.call("net", path, original.folder, 1, "TEST", "-", "mbox_priorbox")
    return original.read("mbox_priorbox")[0, 0].reshape(-1, 4)[:, [1, 0, 3, 2]]


def compare_boxes(original: Original) -> list[Row]:
    """Compares the default boxes of the released configs."""
    rows = []
    for name, config in CONFIGS.items():
        theirs, ours = original_boxes(original, config), default_boxes(config)
        different = int((theirs != ours).sum())
        rows.append((f"default boxes of {name}", f"{ours.size} floats", f"{different} differ"))
    return rows


def random_truth(rng: np.random.Generator, kind: str, images: int, classes: int):
    """Ground truth of a batch: for each image `yxyx` [G, 4], labels [G] and difficult [G]."""
    batch = []
    for image in range(images):
        count = 40 if kind == "crowded" else int(rng.integers(1, 9))
        if kind == "empty" and (image or rng.random() < 0.3):
            count = 0
        low = rng.uniform(0, 0.85, (count, 2))
        high = np.minimum(
            low + rng.uniform(0.02, 0.15 if kind == "crowded" else 0.9, (count, 2)), 1
        )
        if kind == "border":  # like large objects that a crop has cut
            side = rng.random((count, 4)) < 0.5
            low, high = np.where(side[:, :2], 0, low), np.where(side[:, 2:], 1, high)
        boxes = np.concatenate([low, high], axis=1)
        if kind == "grid":  # gives many equal overlaps; the first object occurs twice
            boxes = np.round(boxes * 16) / 16
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1 / 16)
            boxes[1:2] = boxes[:1]
        difficult = rng.random(count) < (0.4 if kind == "difficult" else 0)
        batch.append((boxes.astype(np.float32), rng.integers(1, classes + 1, count), difficult))
    return batch


def padded(truth, use_difficult: bool) -> np.ndarray:
    """Ground truth of a batch as [B, 48, 5]."""
    out = np.zeros((len(truth), 48, 5), np.float32)
    for row, (boxes, labels, difficult) in zip(out, truth, strict=True):
        kept = use_difficult | ~difficult
        row[: kept.sum(), :4], row[: kept.sum(), 4] = boxes[kept], labels[kept]
    return out


@functools.cache
def _loss_and_gradient(config: SSDConfig):
    loss = MultiBoxLoss(config)

    @tf.function
    def run(truth, predictions):
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            value = loss(truth, predictions)
        return value, tape.gradient(value, predictions)

    return run


def losses(original: Original, config: SSDConfig, batches, use_difficult: bool):
    """Computes the losses and gradients of both programs.

    Args:
        original: The driver.
        config: Of the network.
        batches: Pairs of ground truth and predictions [B, P, 4 + 1 + C].
        use_difficult: Whether difficult objects are ground truth.

    Yields:
        ((loss, gradient [B, P, 4 + 1 + C]) of the original, the same of the package).
    """
    original.clear()
    outputs, boxes = batches[0][1].shape[-1] - 4, config.num_default_boxes
    shapes = {"mbox_loc": (1, boxes * 4), "mbox_conf": (1, boxes * outputs)}
    text = inputs(**shapes, mbox_priorbox=(1, 2, boxes * 4), label=(1, 1, 1, 8))
    layer = LOSS % {"outputs": outputs, "difficult": str(use_difficult).lower()}
    path = original.net("loss", text + layer)
    original.write("mbox_priorbox", prior_blob(original_boxes(original, config)))
    for k, (truth, predictions) in enumerate(batches):
        original.write("mbox_loc", caffe_offsets(predictions[..., :4]), k)
        original.write("mbox_conf", predictions[..., 4:].reshape(len(predictions), -1), k)
        rows = [caffe_label(b, c, i, d) for i, (b, c, d) in enumerate(truth)]
        original.write("label", label_blob(rows), k)
    original.call("loss", path, original.folder, len(batches))
    for k, (truth, predictions) in enumerate(batches):
        images = len(predictions)
        offsets = our_offsets(original.read("gradient0", k))
        logits = original.read("gradient1", k).reshape(images, boxes, outputs)
        gradient = np.concatenate([offsets, logits], axis=-1)
        value, ours = _loss_and_gradient(config)(
            tf.constant(padded(truth, use_difficult)), tf.constant(predictions)
        )
        yield (
            (float(original.read("mbox_loss", k).ravel()[0]), gradient),
            (float(value), ours.numpy()),
        )


def loss_row(name: str, pairs) -> Row:
    """Makes one row of the table from the pairs that `losses` yields."""
    value, gradient, boxes, count = 0.0, 0.0, 0, 0
    for (their_loss, theirs), (our_loss, ours) in pairs:
        value = max(value, abs(their_loss - our_loss) / max(abs(their_loss), 1e-12))
        gradient = max(gradient, np.abs(theirs - ours).max() / max(np.abs(theirs).max(), 1e-12))
        parts = [np.abs(g).sum(axis=-1) > 0 for g in (theirs, ours)]
        boxes += int((parts[0] != parts[1]).sum())
        count += 1
    found = f"loss {value:.1e}, gradients {gradient:.1e}, {boxes} boxes in one loss only"
    return f"loss and gradients, {name}", f"{count} batches", found


def compare_losses(original: Original, config: SSDConfig, count: int, seed: int = 0) -> list[Row]:
    """Compares the losses of random batches of every kind."""
    rows = []
    for kind in KINDS:
        for keep in (True, False) if kind == "difficult" else (True,):
            rng = np.random.default_rng([seed, KINDS.index(kind)])
            batches = []
            for _ in range(-(-count // (len(KINDS) + 1))):
                truth = random_truth(rng, kind, 2, 5)
                shape = (2, config.num_default_boxes, 10)
                batches.append((truth, rng.normal(size=shape).astype(np.float32)))
            name = (
                kind
                if kind != "difficult"
                else f"difficult objects {'kept' if keep else 'left out'}"
            )
            rows.append(loss_row(name, losses(original, config, batches, keep)))
    return rows


def compare_real_losses(original: Original, config: SSDConfig, dataset, count: int) -> list[Row]:
    """Compares the losses of augmented real images, with predictions of a narrow random network.

    The predictions are scaled, and noise is added to them: in a flat region many boxes have equal
    losses, and the order in which the original's `std::sort` puts them is undefined.
    """
    rng = np.random.default_rng(2)
    model = ssd_vgg16(config, 20, width=0.125)
    batches = []
    for images, truth in dataset.take(count):
        rows = [(t[:, :4], t[:, 4].astype(int), np.zeros(len(t), bool)) for t in truth.numpy()]
        real = [(b[c > 0], c[c > 0], d[c > 0]) for b, c, d in rows]
        predictions = model(images, training=False).numpy()
        predictions -= predictions.mean(axis=(0, 1))
        predictions /= predictions.std(axis=(0, 1))
        noise = 0.1 * rng.normal(size=predictions.shape)
        batches.append((real, predictions + noise.astype(np.float32)))
    return [loss_row("augmented real images", losses(original, config, batches, True))]


def compare_network(original: Original, name: str, outputs: int, images: np.ndarray) -> list[Row]:
    """Compares the raw outputs of a full-width `.caffemodel` that the original wrote."""
    original.clear()
    config, size = CONFIGS[name], CONFIGS[name].image_size
    text = inputs(data=(len(images), 3, size, size)) + network(config, outputs, 1.0, "msra")
    path, weights = original.net("network", text), original.folder / "network.caffemodel"
    original.call("init", path, 3, weights)
    original.write("data", caffe_images(images))
    original.call("net", path, original.folder, 1, "TEST", weights, "mbox_loc,mbox_conf")
    model = ssd_vgg16(config, outputs - 1)
    report = _load(model, weights, config)
    weights.unlink()
    ours = model(images, training=False).numpy()
    shape = (len(images), config.num_default_boxes, -1)
    theirs = our_offsets(original.read("mbox_loc")), original.read("mbox_conf").reshape(shape)
    found = [
        f"{kind} {np.abs(a - b).max() / np.abs(a).max():.1e}"
        for kind, a, b in zip(
            ("offsets", "logits"), theirs, (ours[..., :4], ours[..., 4:]), strict=True
        )
    ]
    found.append(f"of the largest ({np.abs(theirs[0]).max():.0f}, {np.abs(theirs[1]).max():.0f})")
    loaded = sum(state == "loaded" for _, state in report.layers)
    what = f".caffemodel of {name}, {outputs} outputs, imported and run"
    return [(what, f"{len(images)} pictures, {loaded} layers loaded", ", ".join(found))]


def _load(model: keras.Model, weights, config: SSDConfig):
    names = [f"class {i}" for i in range(1, model.output_shape[-1] - 4)]
    return load_weights(model, weights, weights_config=config, weights_labels=names)


def capped(scores: np.ndarray, cap: int | None = 400) -> np.ndarray:
    """Sets all scores [B, P, C] except the `cap` best of each class to 0, as in the original."""
    if cap is None:
        return scores
    order = np.argsort(-scores, axis=1, kind="stable")[:, cap:]
    out = scores.copy()
    np.put_along_axis(out, order, 0.0, axis=1)
    return out


def our_detections(config: SSDConfig, predictions: np.ndarray, cap: int | None):
    """Returns the package's detections; with a cap, its suppression runs on the capped scores."""
    decoder = DetectionDecoder(config)
    if cap is None:
        return unpad({k: v.numpy() for k, v in decoder(tf.constant(predictions)).items()})
    boxes, scores = decoder.candidates(tf.constant(predictions))
    limits = {"max_output_size_per_class": 200, "max_total_size": 200}
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None], capped(scores.numpy(), cap), **limits, iou_threshold=0.45,
        score_threshold=0.01,
    )  # fmt: skip
    outputs = {"boxes": kept.nmsed_boxes, "scores": kept.nmsed_scores}
    outputs |= {"classes": kept.nmsed_classes + 1, "num_detections": kept.valid_detections}
    return unpad({k: v.numpy() for k, v in outputs.items()})


def original_detections(original: Original, config: SSDConfig, predictions: np.ndarray):
    """Returns the original's detections: for each image a dictionary like those of `unpad`.

    This function clips the boxes. The original clips them when it writes or evaluates them.
    """
    original.clear()
    outputs, boxes = predictions.shape[-1] - 4, config.num_default_boxes
    shapes = {"mbox_loc": (1, boxes * 4), "mbox_conf": (1, boxes * outputs)}
    text = inputs(**shapes, mbox_priorbox=(1, 2, boxes * 4)) + DETECTION % {"outputs": outputs}
    path = original.net("detect", text)
    original.write("mbox_priorbox", prior_blob(original_boxes(original, config)))
    original.write("mbox_loc", caffe_offsets(predictions[..., :4]))
    original.write("mbox_conf", predictions[..., 4:].reshape(len(predictions), -1))
    original.call("net", path, original.folder, 1, "TEST", "-", "detection_out")
    rows = original.read("detection_out")[0, 0]
    found = []
    for image in range(len(predictions)):
        mine = rows[(rows[:, 0] == image) & (rows[:, 1] > 0)]
        order = np.argsort(-mine[:, 2], kind="stable")
        boxes = np.clip(mine[order][:, [4, 3, 6, 5]], 0, 1)
        columns = {"boxes": boxes, "scores": mine[order, 2]}
        found.append({**columns, "classes": mine[order, 1].astype(int)})
    return found


def detections_row(name: str, theirs, ours) -> Row:
    """Counts the same detections: equal class, score within 1e-5, box within 1e-4."""
    same, total, extra, box = 0, 0, 0, 0.0
    for a, b in zip(theirs, ours, strict=True):
        alike = (a["classes"][:, None] == b["classes"]) & (
            np.abs(a["scores"][:, None] - b["scores"]) < 1e-5
        )
        distance = np.abs(a["boxes"][:, None] - b["boxes"]).max(axis=-1)
        near = np.where(alike, distance, np.inf).min(axis=1, initial=np.inf)
        same, total, extra = (
            same + int((near < 1e-4).sum()),
            total + len(near),
            extra + len(b["scores"]),
        )
        box = max(box, float(near[near < 1e-4].max(initial=0)))
    found = f"{same} the same of {total} (original) and {extra} (package), boxes within {box:.0e}"
    return f"detections, {name}", f"{len(theirs)} pictures", found


def compare_detections(original: Original, config: SSDConfig, pictures: int = 10) -> list[Row]:
    """Compares detections with few candidates per class, with many, and with a crowd of one class.

    The crowd fills the original's cap of 400 candidates.
    """
    rows = []
    rng = np.random.default_rng(1)
    for name, classes, background in (("few", 20, 6.0), ("many", 20, 1.0), ("a crowd of", 1, 8.0)):
        shape = (pictures, config.num_default_boxes, 5 + classes)
        predictions = rng.normal(size=shape).astype(np.float32)
        predictions[..., 4:] *= 2 if classes > 1 else 1
        predictions[..., 4] += background
        if classes == 1:  # boxes in the middle of the image
            boxes = default_boxes(config)
            middle = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5).max(axis=1) < 0.2
            predictions[..., 5] += 8 * middle
            predictions[..., :4] *= 0.2
        theirs = original_detections(original, config, predictions)
        for cap in (400, None):
            label = f"{name} candidates, package {'with' if cap else 'without'} the cap of 400"
            rows.append(detections_row(label, theirs, our_detections(config, predictions, cap)))
    return rows


def solve(
    original: Original,
    config: SSDConfig,
    outputs: int,
    batches,
    width: float,
    start=None,
    load=_load,
):
    """Trains with both programs: iter_size 2, weight decay 5e-4, lower rate in the second half.

    Args:
        original: The driver.
        config: Of the network.
        outputs: Classes with background.
        batches: (images, ground truth [B, G, 5]), two for each step.
        width: Of the network.
        start: A `.caffemodel` with the initial weights; by default, the original draws them.
        load: Function that loads the weights of a file into a model.

    Returns:
        Losses of both programs, [steps, 2]; then three dictionaries of weights by name: initial,
        final of the original, final of the package.
    """
    original.clear()
    steps, size, batch = len(batches) // 2, config.image_size, len(batches[0][0])
    text = inputs(data=(batch, 3, size, size), label=(1, 1, 1, 8)) + network(config, outputs, width)
    text += LOSS % {"outputs": outputs, "difficult": "true"}
    path = original.net("train", text)
    if start is None:
        start = original.folder / "start.caffemodel"
        original.call("init", path, 5, start)
    solver = original.net("solver", "")
    solver.write_text(
        f'net: "{path}"\nbase_lr: 0.001\nlr_policy: "multistep"\ngamma: 0.1\nmomentum: 0.9\n'
        f"weight_decay: 0.0005\nstepvalue: {steps // 2}\nmax_iter: 1000\nsnapshot: 0\ndisplay: 0\n"
        'solver_mode: CPU\ntype: "SGD"\niter_size: 2\nrandom_seed: 1\n'
    )
    for k, (images, truth) in enumerate(batches):
        original.write("data", caffe_images(images), k)
        real = [t[t[:, 4] > 0] for t in truth]
        rows = [caffe_label(t[:, :4], t[:, 4], i) for i, t in enumerate(real)]
        original.write("label", label_blob(rows), k)
    theirs = [
        float(line)
        for line in original.call("solve", solver, original.folder, steps, start).split()
    ]

    before, values, end = our_steps(config, outputs, batches, width, start, load)
    model = ssd_vgg16(config, outputs - 1, width=width)
    load(model, original.folder / "end.caffemodel", config)
    their_end = {v.path: v.numpy() for v in model.trainable_variables}
    return np.stack([theirs, values], axis=1), before, their_end, end


def our_steps(config: SSDConfig, outputs: int, batches, width: float, start, load, nudged=False):
    """Trains with the package, for `solve`: initial weights, loss of each step, final weights.

    With `nudged`, every initial weight is one unit in the last place higher or lower.
    """
    model = ssd_vgg16(config, outputs - 1, width=width)
    load(model, start, config)
    if nudged:
        rng = np.random.default_rng(0)
        for v in model.trainable_variables:
            side = np.float32(np.where(rng.random(v.shape) < 0.5, -np.inf, np.inf))
            v.assign(np.nextafter(v.numpy(), side))
    before = {v.path: v.numpy() for v in model.trainable_variables}
    schedule = Schedule(0.001, (len(batches) // 4,))
    model.compile(
        CaffeSGD(schedule, gradient_accumulation_steps=2), MultiBoxLoss(config), jit_compile=False
    )
    losses = []
    for images, truth in batches:
        losses.append(float(model.train_on_batch(images, truth, return_dict=True)["loss"]))
        model.reset_metrics()
    end = {v.path: v.numpy() for v in model.trainable_variables}
    return before, np.mean(np.reshape(losses, (-1, 2)), axis=1), end


def with_original_gradient():
    """Context manager that gives L2Normalization the gradient of the original's Normalize layer."""
    return mock.patch.object(L2Normalization, "call", call_with_original_gradient)


def compare_solver(original: Original, config: SSDConfig, dataset, steps: int = 20) -> list[Row]:
    """Compares training from the same weights on the same batches of two images.

    The first row uses the package's gradient of conv4_3_norm, the second one the original's. The
    last row shows the effect of rounding alone: it compares two runs of the package whose initial
    weights differ by one unit in the last place.
    """
    batches = [(i.numpy(), t.numpy()) for i, t in dataset.take(2 * steps)]
    with_exact = solve(original, config, 21, batches, 0.25)
    rows = [_solver_row("the solver", with_exact, batches)]
    with with_original_gradient():
        name = "the solver, with the original's gradient of conv4_3_norm in the package"
        rows.append(_solver_row(name, solve(original, config, 21, batches, 0.25), batches))
    values, before, _, ours = with_exact
    start = original.folder / "start.caffemodel"
    _, nudged, end = our_steps(config, 21, batches, 0.25, start, _load, nudged=True)
    pair = np.stack([nudged, values[:, 1]], axis=1), before, end, ours
    return [
        *rows,
        _solver_row("the solver, package twice, one start changed in the last bit", pair, batches),
    ]


def _solver_row(name: str, result, batches) -> Row:
    values, before, theirs, ours = result
    loss = np.abs(values[:, 0] - values[:, 1]) / values[:, 0]
    moved = np.sqrt(sum(((theirs[k] - before[k]) ** 2).sum() for k in before))
    apart = np.sqrt(sum(((theirs[k] - ours[k]) ** 2).sum() for k in before))
    worst = max(
        np.linalg.norm(theirs[k] - ours[k]) / max(np.linalg.norm(theirs[k] - before[k]), 1e-12)
        for k in before
    )
    found = (
        f"losses {loss.max():.1e} ({values[0, 0]:.3f} to {values[-1, 0]:.3f}), weights differ "
        f"by {apart / moved:.1e} of their change, the worst variable by {worst:.1e}"
    )
    return name, f"{len(values)} steps of 2 x {len(batches[0][0])} pictures", found
