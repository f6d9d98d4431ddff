"""Compares exports in bfloat16 and OpenVINO, from uint8 images to detections.

scripts/bfloat16_speed.py --folder=FOLDER [--batches 1 8] [--repeats 5]

The model is an SSD300 of full width with 20 classes, random weights and a bias towards the
background. FOLDER keeps the exported files, so that a second run only measures. OpenVINO runs the
network; its predictions are decoded and suppressed by the same code as in the SavedModel. All
candidates run in turn in one process.
"""

import argparse
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    folder = Path(args.folder)
    if not (folder / "network").exists():
        export(folder)
    for name in ("float32", "bfloat16"):
        size = sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file())
        print(f"SavedModel {name}: {size / 1e6:.1f} MB")
    candidates = {
        "SavedModel float32": saved_model(folder / "float32"),
        "SavedModel bfloat16": saved_model(folder / "bfloat16"),
        "OpenVINO as it comes": with_openvino(folder / "network", {}),
        "OpenVINO float32": with_openvino(folder / "network", {"INFERENCE_PRECISION_HINT": "f32"}),
    }
    for batch in args.batches:
        images = np.random.default_rng(0).integers(0, 256, (batch, 300, 300, 3))
        images = tf.constant(images, tf.uint8)
        times = {name: [] for name in candidates}
        for run in candidates.values():
            run(images)
        for _ in range(args.repeats):
            for name, run in candidates.items():
                start = time.perf_counter()
                run(images)
                times[name].append((time.perf_counter() - start) / batch * 1e3)
        for name, values in times.items():
            ratio = np.median(values) / np.median(times["OpenVINO as it comes"])
            print(
                f"batch {batch}  {name:22} {np.median(values):6.1f} ms an image "
                f"({min(values):.1f} at best), ratio {ratio:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
