"""Ablation study of the initialization of all layers except VGG16's 13 convolutions.

    python scripts/ablation_start.py RECORDS vgg16_notop.npz OUT.json [--iterations 30]

Trains a full-width SSD300 from each variant below for a few batches of 8. All variants see the same
batches. Prints the losses of some batches and the largest gradient norm, and writes all of them as
JSON. "xavier" initializes all new layers as the original does. The other variants add the parts of
`ssd_keras.initialization` one by one.
"""

import argparse
import json
import time

import keras

from ssd_keras import SSD300_VOC, initialization, model, train_dataset
from ssd_keras.data.card import read_card
from ssd_keras.initialization import named_variables
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.training.optimizer import Adam, CaffeSGD, Schedule

# name: (initialized parts, iterations of warm-up, largest global gradient norm, optimizer)
VARIANTS = {
    "xavier": ("", 0, None, "sgd"),
    "xavier, warm-up": ("", 20, None, "sgd"),
    "xavier, clip": ("", 0, 10.0, "sgd"),
    "xavier, warm-up, clip": ("", 20, 10.0, "sgd"),
    "fc6's scale, warm-up, clip": ("fc6", 20, 10.0, "sgd"),
    "fc6's scale, He's gain, warm-up, clip": ("backbone", 20, 10.0, "sgd"),
    "all (the default)": ("all", 0, None, "sgd"),
    "all, warm-up, clip": ("all", 20, 10.0, "sgd"),
    "all, warm-up, clip, Adam": ("all", 20, 10.0, "adam"),
}


def build(parts, weights, labels):
    """Builds the model; `parts` get the initialization of this package, the other layers Xavier's.

    Args:
        parts: "" for no layer, "fc6", "backbone" for fc6, fc7 and the extra layers, or "all", which
            adds the heads.
        weights: File with the VGG16 convolutions.
        labels: Class names.
    """
    keras.utils.set_random_seed(0)
    network = model.ssd_vgg16(SSD300_VOC, len(labels), weights=weights, labels=labels)
    kept = {"": (), "fc6": ("fc6",), "backbone": ("fc", "conv"), "all": ("fc", "conv")}[parts]
    # With fc6 listed as loaded, `initial_weights` returns Xavier kernels for all layers except fc6,
    # whose kernel is taken from its Keras initializer.
    vgg = [f"conv{b}_{i}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, n + 1)]
    xavier = initialization.initial_weights(network, {*vgg, "fc6"})
    fc6 = network.get_layer("fc6")
    xavier["fc6/kernel"] = fc6.kernel_initializer(fc6.kernel.shape)
    variables = named_variables(network)
    for name, array in xavier.items():
        is_head = "_offsets/" in name or "_logits/" in name
        if parts != "all" if is_head else not name.startswith(kept):
            variables[name].assign(array)
    return network


def train(network, dataset, warmup, clip, optimizer):
    """Trains; returns confidence loss, localization loss and gradient norm of each batch."""
    if optimizer == "sgd":
        solver = CaffeSGD(Schedule(1e-3, (), warmup=warmup), global_clipnorm=clip)
    else:
        solver = Adam(Schedule(2e-4, (), warmup=warmup), global_clipnorm=clip)
    network.compile(solver, loss=MultiBoxLoss(SSD300_VOC))
    rows = []
    for images, truth in dataset:
        network.reset_metrics()
        logs = network.train_on_batch(images, truth, return_dict=True)
        losses = (logs["confidence_loss"], logs["localization_loss"], solver.gradient_norm)
        rows.append([float(value) for value in losses])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records")
    parser.add_argument("weights")
    parser.add_argument("out")
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--precision", default="mixed_bfloat16")
    arguments = parser.parse_args()
    keras.config.set_dtype_policy(arguments.precision)
    labels = read_card(arguments.records).labels
    dataset = train_dataset(arguments.records, SSD300_VOC, 8, repeat=True)
    dataset = dataset.take(arguments.iterations)
    found = {}
    for name, (parts, warmup, clip, optimizer) in VARIANTS.items():
        start = time.monotonic()
        network = build(parts, arguments.weights, labels)
        rows = found[name] = train(network, dataset, warmup, clip, optimizer)
        shown = [rows[i] for i in range(len(rows)) if i in (0, 9, 19, 29)]
        print(
            f"{name:40} confidence {' '.join(f'{row[0]:6.2f}' for row in shown)}   localization "
            f"{' '.join(f'{row[1]:5.2f}' for row in shown)}   largest norm "
            f"{max(row[2] for row in rows):7.0f}   {time.monotonic() - start:.0f} s",
            flush=True,
        )
        with open(arguments.out, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
