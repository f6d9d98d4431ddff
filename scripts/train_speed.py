"""Compares the time of a training step of SSD300 with that of torchvision's.

    python scripts/train_speed.py --torch_python=.../python [--precisions=float32,bfloat16]

Both networks have full width and 20 classes, random weights, and random images with 8 objects each.
This package trains with the solver of the paper's recipes. torchvision trains in the memory format
"channels last" with SGD, and with autocast for bfloat16. Each is a process of its own, and the two
make a step in turns, so that other work on the machine slows both. torch and torchvision may be in
an environment without this package.

The script prints the median and the shortest step, the median of the ratios of neighboring steps,
the peak memory of each process, and the time of matching, mining and loss with their gradients, at
8 and at 100 objects an image, as a share of the step. All times are given as wall clock time and as
CPU time of the process. On a busy machine the second varies less, but PyTorch's threads spin while
they wait, so do not compare it with PyTorch's there. --baseline also runs Keras's form of fc6.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np

CLASSES = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch_python", help="Python with torch and torchvision; None: ours only")
    parser.add_argument("--precisions", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--baseline", action="store_true", help="also run Keras's form of fc6")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(STEPS[args.worker](args.precisions, args.batch_size))
    for precision in args.precisions.split(","):
        compare(precision, args)


def compare(precision, args):
    pythons = {"ours": sys.executable}
    if args.baseline:
        pythons["keras_fc6"] = sys.executable
    if args.torch_python:
        pythons["torchvision"] = args.torch_python
    words = ["--precisions", precision, "--batch_size", str(args.batch_size)]
    workers = {
        name: subprocess.Popen(
            [python, __file__, "--worker", name, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for name, python in pythons.items()
    }

    def ask(name, question):
        workers[name].stdin.write(f"{question}\n")
        workers[name].stdin.flush()
        answer = workers[name].stdout.readline()
        if not answer:
            command = " ".join([pythons[name], __file__, *words, "--worker", name])
            raise SystemExit(f"{name} ended; its errors: echo step | {command}")
        return np.array(answer.split(), float)

    for name in workers:
        ask(name, "step")  # traces, and allocates memory
    steps = {name: [] for name in workers}
    losses = {8: [], 100: []}
    for objects in losses:
        ask("ours", objects)
    for _ in range(args.rounds):
        for name in workers:
            steps[name].append(ask(name, "step"))
        for objects in losses:
            losses[objects].append(ask("ours", objects))
    print(f"{precision}, batch {args.batch_size}: wall clock and CPU time")
    for name, times in steps.items():
        (wall, cpu), (best, _) = np.median(times, axis=0), np.min(times, axis=0)
        (memory,) = ask(name, "memory")
        print(
            f"  {name:12} {wall / args.batch_size:.3f} and {cpu / args.batch_size:.3f} s an image "
            f"({best / args.batch_size:.3f} at best), peak memory {memory:.2f} GB"
        )
        if name != "ours":
            wall, cpu = np.median(np.divide(steps["ours"], times), axis=0)
            print(f"  ours / {name}: {wall:.2f} and {cpu:.2f}")
    for objects, times in losses.items():
        (wall, cpu), shares = np.median(times, axis=0), np.divide(times, steps["ours"])
        share, cpu_share = np.median(shares, axis=0)
        print(
            f"  matching, mining, loss with {objects} objects: {wall * 1e3:.0f} and "
            f"{cpu * 1e3:.0f} ms, {share:.1%} and {cpu_share:.1%} of a step",
            flush=True,
        )
    for process in workers.values():
        process.stdin.close()
        process.wait()


def work(run):
    """Answers questions on stdin: "memory" with gigabytes, all others with two times in seconds."""
    for line in sys.stdin:
        if line.strip() == "memory":
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, flush=True)
            continue
        start = time.perf_counter(), time.process_time()
        run(line.strip())
        print(time.perf_counter() - start[0], time.process_time() - start[1], flush=True)


def random_boxes(batch_size, objects):
    """Boxes yxyx, float32 [B, G, 4] in [0, 1], and labels, [B, G]."""
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 0.6, (batch_size, objects, 2))
    sizes = generator.uniform(0.1, 0.4, (batch_size, objects, 2))
    labels = generator.integers(1, CLASSES + 1, (batch_size, objects))
    return np.concatenate([corners, corners + sizes], axis=-1).astype(np.float32), labels


def ours(precision, batch_size):
    import keras
    import tensorflow as tf

    from ssd_keras.config import SSD300_VOC
    from ssd_keras.losses import MultiBoxLoss
    from ssd_keras.model import ssd_vgg16
    from ssd_keras.training.optimizer import CaffeSGD

    keras.config.set_dtype_policy({"bfloat16": "mixed_bfloat16"}.get(precision, precision))
    model = ssd_vgg16(SSD300_VOC, CLASSES)
    loss = MultiBoxLoss(SSD300_VOC)
    model.compile(CaffeSGD(1e-4), loss=loss)
    images = tf.random.uniform([batch_size, 300, 300, 3], 0, 255)

    def truth(objects):
        boxes, labels = random_boxes(batch_size, objects)
        return tf.constant(np.concatenate([boxes, labels[..., None]], axis=-1).astype(np.float32))

    predictions = tf.random.normal([batch_size, SSD300_VOC.num_default_boxes, 5 + CLASSES])
    few, truths = truth(8), {"8": truth(8), "100": truth(100)}

    @tf.function
    def loss_alone(ground_truth):
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            value = loss(ground_truth, predictions)
        return tf.reduce_sum(tape.gradient(value, predictions))

    def run(question):
        if question == "step":
            model.train_on_batch(images, few)
        else:
            loss_alone(truths[question]).numpy()

    return run


def keras_fc6(precision, batch_size):
    """This package with fc6 in the form of Keras."""
    import keras

    from ssd_keras.layers import DilatedConv2D

    DilatedConv2D.call = lambda self, x, training=None: keras.layers.Conv2D.call(self, x)
    return ours(precision, batch_size)


def torchvision(precision, batch_size):
    import torch
    from torchvision.models.detection import ssd300_vgg16

    torch.manual_seed(0)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    model = model.train().to(memory_format=torch.channels_last)
    solver = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    images = [torch.rand(3, 300, 300) for _ in range(batch_size)]
    boxes, labels = random_boxes(batch_size, 8)
    targets = [
        {"boxes": torch.tensor(b[:, [1, 0, 3, 2]] * 300), "labels": torch.tensor(label)}
        for b, label in zip(boxes, labels, strict=True)
    ]

    def run(question):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = sum(model(images, targets).values())
        solver.zero_grad()
        loss.backward()
        solver.step()

    return run


STEPS = {"ours": ours, "keras_fc6": keras_fc6, "torchvision": torchvision}

if __name__ == "__main__":
    main()
