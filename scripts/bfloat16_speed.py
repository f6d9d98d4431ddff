"""Compares exports in bfloat16 and OpenVINO, from uint8 images to detections.

scripts/bfloat16_speed.py --folder=FOLDER [--batches 1 8] [--repeats 5]

The model is an SSD300 of full width with 20 classes, random weights and a bias towards the
background. FOLDER keeps the exported files, so that a second run only measures. OpenVINO runs the
network; its predictions are decoded and suppressed by the same code as in the SavedModel. All
candidates run in turn, each in a process of its own: the threads of OpenVINO slow TensorFlow in
one process.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openvino
import tensorflow as tf

from ssd_keras.config import SSD300_VOC
from ssd_keras.detections import DetectionDecoder
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.model import ssd_vgg16

CLASSES = 20


def export(folder):
    model = ssd_vgg16(SSD300_VOC, CLASSES, labels=[f"class {i}" for i in range(CLASSES)])
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "bias"):  # TensorFlow would remove biases of 0 from the graph
            bias = rng.normal(0, 0.01, layer.bias.shape)
            if layer.name.endswith("_logits"):
                bias[:: 1 + CLASSES] += 9
            layer.bias.assign(bias)
    for precision in ("float32", "bfloat16"):
        export_saved_model(model, folder / precision, precision=precision)
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    spec = tf.TensorSpec([None, 300, 300, 3], tf.float32)
    module.run = tf.function(lambda images: model(images, training=False), input_signature=[spec])
    tf.saved_model.save(module, str(folder / "network"), signatures=module.run)


def saved_model(path):
    loaded = tf.saved_model.load(str(path))

    def run(images):
        assert loaded is not None
        return loaded.signatures["serving_default"](images=images)["num_detections"].numpy()

    return run


def with_openvino(path, hints):
    network = openvino.Core().compile_model(openvino.convert_model(path), "CPU", hints)
    decode = tf.function(DetectionDecoder(SSD300_VOC))

    def run(images):
        predictions = network(images.numpy().astype(np.float32))[0]
        return decode(tf.constant(predictions))["num_detections"].numpy()

    return run


CANDIDATES = {
    "SavedModel float32": lambda folder: saved_model(folder / "float32"),
    "SavedModel bfloat16": lambda folder: saved_model(folder / "bfloat16"),
    "OpenVINO as it comes": lambda folder: with_openvino(folder / "network", {}),
    "OpenVINO float32": lambda folder: with_openvino(
        folder / "network", {"INFERENCE_PRECISION_HINT": "f32"}
    ),
}


def measure(name, folder, batches, repeats):
    """Prints the times of one candidate in milliseconds an image, a line for each batch size."""
    run = CANDIDATES[name](folder)
    for batch in batches:
        images = np.random.default_rng(0).integers(0, 256, (batch, 300, 300, 3))
        images = tf.constant(images, tf.uint8)
        run(images)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            run(images)
            times.append((time.perf_counter() - start) / batch * 1e3)
        print(json.dumps(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--candidate", help="measure one candidate only; used by the script")
    args = parser.parse_args()
    folder = Path(args.folder)
    if args.candidate:
        measure(args.candidate, folder, args.batches, args.repeats)
        return
    if not (folder / "network").exists():
        export(folder)
    for name in ("float32", "bfloat16"):
        size = sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file())
        print(f"SavedModel {name}: {size / 1e6:.1f} MB")
    times = {name: [[] for _ in args.batches] for name in CANDIDATES}
    for _ in range(args.rounds):
        for name, values in times.items():
            words = [sys.executable, __file__, *sys.argv[1:], "--candidate", name]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
            for found, line in zip(values, lines, strict=True):
                found += json.loads(line)
    for k, batch in enumerate(args.batches):
        peer = np.median(times["OpenVINO as it comes"][k])
        for name, values in times.items():
            middle = np.median(values[k])
            print(
                f"batch {batch}  {name:22} {middle:6.1f} ms an image ({min(values[k]):.1f} at "
                f"best), ratio {middle / peer:.2f}"
            )


if __name__ == "__main__":
    main()
