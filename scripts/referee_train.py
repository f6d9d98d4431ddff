"""Trains the original and the package side by side, for `referee.py --train`."""

import json
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from referee_data import make_database
from referee_nets import LOSS, data, network
from referee_original import Original

from ssd_keras.config import SSD300_VOC
from ssd_keras.data.card import read_card
from ssd_keras.data.pipeline import eval_dataset, train_dataset
from ssd_keras.data.records import read_samples
from ssd_keras.detections import DetectionDecoder, unpad
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.initialization import named_variables
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16
from ssd_keras.training.optimizer import CaffeSGD
from ssd_keras.weights.load import load_weights
from ssd_keras.weights.projects import find_project
from tests.reference import projects


def write_start(path: pathlib.Path, imagenet: pathlib.Path, outputs: int) -> None:
    """Writes ImageNet's 13 convolutions, and xavier kernels and biases of 0 in all other layers.

    Args:
        path: The `.caffemodel` to write.
        imagenet: keras.applications' convolutions, an .npz of "block1_conv1/kernel" and so on.
        outputs: Classes with background.
    """
    model, rng = ssd_vgg16(SSD300_VOC, outputs - 1), np.random.default_rng(0)
    pretrained, theirs = np.load(imagenet), find_project((), "caffe").tensors
    theirs = {ours: name for name, ours in theirs.items()}
    layers: dict[str, list[np.ndarray]] = {}
    for name, variable in named_variables(model).items():
        layer, kind = name.split("/")
        source = f"block{layer[4:5]}_conv{layer[6:]}/{kind}"
        if kind == "scale":
            values = np.full(variable.shape, 20)
        elif source in pretrained:
            values = pretrained[source]
        elif kind == "kernel":
            bound = np.sqrt(3 / np.prod(variable.shape[:3]))
            values = rng.uniform(-bound, bound, variable.shape)
        else:
            values = np.zeros(variable.shape)
        values = values.transpose(3, 2, 0, 1) if kind == "kernel" else values
        caffe_layer = theirs[name].rpartition("/")[0]
        layers.setdefault(caffe_layer, []).append(values.astype(np.float32))
    path.write_bytes(projects.caffemodel(list(layers.items())))


def train(original: Original, args, outputs: int, steps: int, batch: int = 8) -> None:
    """Trains both, and writes their losses and AP to `args.train` when a run ends.

    A second call skips the runs that the file holds.
    """
    result = json.loads(args.train.read_text()) if args.train.exists() else {}

    def keep(name: str, losses: list[float]) -> None:
        average = _average_precision(model, args.eval_records, labels)
        result[name] = {"loss": losses, "AP": average}
        args.train.write_text(json.dumps(result, indent=1))
        plot(result, args.train.with_suffix(".png"))
        print(f"{name}: AP {average:.4f}, last losses {losses[-10:]}", flush=True)

    labels = read_card(args.records).labels
    start, end = (args.train.with_suffix(f".{name}.caffemodel") for name in ("start", "end"))
    write_start(start, args.imagenet, outputs)
    model = ssd_vgg16(SSD300_VOC, outputs - 1, labels=labels)
    if "original" not in result:
        losses = _train_original(original, args, labels, steps, batch, start, end)
        load_weights(model, end, weights_config=SSD300_VOC, weights_labels=labels)
        keep("original", losses)
    for seed in args.seeds:
        if (name := f"ours, seed {seed}") in result:
            continue
        load_weights(model, start, weights_config=SSD300_VOC, weights_labels=labels)
        model.compile(CaffeSGD(args.rate), MultiBoxLoss(SSD300_VOC), jit_compile=False)
        losses = []
        for images, truth in train_dataset(
            args.records, SSD300_VOC, batch, repeat=True, seed=seed
        ).take(steps):
            losses.append(float(model.train_on_batch(images, truth, return_dict=True)["loss"]))
            model.reset_metrics()
            print(f"{name}: step {len(losses)}, loss {losses[-1]:.4f}", flush=True)
        keep(name, losses)


def _train_original(original: Original, args, labels, steps: int, batch: int, start, end):
    """Returns the losses of the original's solver; the solver writes its weights to `end`."""
    lmdb, label_map = make_database(args.voc, args.split, args.convert, labels, original.folder)
    loss = LOSS % {"outputs": 1 + len(labels), "difficult": "true"}
    layers = network(SSD300_VOC, 1 + len(labels)) + loss
    path = original.net("train", data(300, str(lmdb), str(label_map), batch) + layers)
    solver = original.net("solver", "")
    solver.write_text(
        f'net: "{path}"\nbase_lr: {args.rate}\nlr_policy: "fixed"\nmomentum: 0.9\n'
        "weight_decay: 0.0005\nmax_iter: 100000\nsnapshot: 0\ndisplay: 0\nsolver_mode: CPU\n"
        'type: "SGD"\nrandom_seed: 1\n'
    )
    return [float(x) for x in original.call("train", solver, steps, start, end).split()]


def plot(result: dict, path: pathlib.Path, window: int = 10) -> None:
    """Draws the losses of all runs, as means over `window` batches."""
    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for (name, run), color in zip(
        result.items(), ("black", "tab:blue", "tab:orange"), strict=False
    ):
        means = np.reshape(run["loss"], (-1, window)).mean(axis=1)
        numbers = np.arange(1, 1 + len(means)) * window
        axes.plot(numbers, means, color=color, label=f"{name} (mAP {run['AP']:.3f})")
    axes.set(xlabel="iteration", ylabel=f"loss, mean of {window} iterations", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _average_precision(model, records, labels) -> float:
    decoder, found = DetectionDecoder(SSD300_VOC), []
    for images, _ in eval_dataset(records, SSD300_VOC, 8):
        outputs = decoder(model(images, training=False))
        found += unpad({name: value.numpy() for name, value in outputs.items()})
    return voc_average_precision(found, list(read_samples(records)), labels).mean_ap_area
