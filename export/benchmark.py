"""Measures the speed of an exported SavedModel and the cost of suppression.

    python export/benchmark.py [--torch_python=.../python] [--openvino_python=.../python]

Times a full-width SSD300 with 20 classes, from uint8 images to detections. Its weights are random,
with a bias towards background. The same measurement runs other programs in turn, each in a separate
Python environment: torchvision's ssd300_vgg16 (channels last) from float images to detections,
torchvision's network alone (backbone and heads), and OpenVINO with only the network of this
package. The script reports the shortest of several times, because other work on the machine can
only increase a time.
"""

import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags, logging

from ssd_keras.commands.common import run_script
from ssd_keras.config import SSD300_VOC
from ssd_keras.detections import DetectionDecoder
from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.model import ssd_vgg16

_TORCH = flags.DEFINE_string(
    "torch_python", None, "Python interpreter with torch and torchvision. Default: skip them."
)
_OPENVINO = flags.DEFINE_string(
    "openvino_python", None, "Python interpreter with openvino. Default: skip it."
)
_BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Batch sizes.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs per round.")
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Rounds over all candidates.")

_CLASSES = 20

_TORCHVISION = """
import torch
from torchvision.models.detection import ssd300_vgg16
model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).eval()
for logits in model.head.classification_head.module_list:
    logits.bias.data[::21] += 9
model = model.to(memory_format=torch.channels_last)
images = torch.rand(batch, 3, 300, 300).to(memory_format=torch.channels_last)
def run():
    with torch.inference_mode():
"""
_PEERS = {
    "torchvision": _TORCHVISION + "        model(list(images))",
    "torchvision, network": _TORCHVISION
    + "        model.head(list(model.backbone(images).values()))",
    "OpenVINO, network": """
import numpy, openvino
hint = {"INFERENCE_PRECISION_HINT": "f32"}  # the default is bfloat16 on CPUs that have it
model = openvino.Core().compile_model(openvino.convert_model(network), "CPU", hint)
images = numpy.random.rand(batch, 300, 300, 3).astype("float32")
def run():
    model(images)
""",
}
_PEER_MAIN = """
import sys, time
batch, repeats, network = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
{peer}
run()
times = []
for _ in range(repeats):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
print(min(times))
"""


def main(words: list[str]) -> None:
    """Times all candidates and prints one line for each."""
    logging.set_verbosity(logging.WARNING)  # otherwise TensorFlow logs each file that it writes
    model = ssd_vgg16(SSD300_VOC, _CLASSES, labels=[f"class {i}" for i in range(_CLASSES)])
    for layer in model.layers:
        if hasattr(layer, "bias"):  # TensorFlow would remove biases of 0 from the graph
            bias = np.random.default_rng(0).normal(0, 0.01, layer.bias.shape)
            if layer.name.endswith("_logits"):
                bias[:: 1 + _CLASSES] += 9  # almost all boxes of a trained model are background
            layer.bias.assign(bias)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        candidates: dict[str, Callable[[int], float]] = {}
        for name, freeze in (("SavedModel", False), ("SavedModel, frozen", True)):
            export_saved_model(model, folder / name, freeze=freeze)
            candidates[name] = _saved_model(folder / name)
        network = _save_network(model, folder / "network")
        for name, peer in _PEERS.items():
            if python := (_TORCH if name.startswith("torchvision") else _OPENVINO).value:
                candidates[name] = _peer(python, peer, folder / "network")
        for batch in map(int, _BATCHES.value):
            least = dict.fromkeys(candidates, float("inf"))
            for _ in range(_ROUNDS.value):
                for name, seconds in candidates.items():
                    least[name] = min(least[name], seconds(batch))
            for name, shortest in least.items():
                print(
                    f"batch {batch}  {name:20} {shortest / batch * 1e3:7.1f} ms/image", flush=True
                )
    _report_suppression(network)


def _saved_model(path: pathlib.Path) -> Callable[[int], float]:
    loaded = tf.saved_model.load(str(path))
    return lambda batch: _least(
        lambda images: loaded.signatures["serving_default"](images=images),
        tf.constant(np.random.default_rng(0).integers(0, 256, (batch, 300, 300, 3)), tf.uint8),
    )


def _save_network(model: tf.Module, path: pathlib.Path) -> Callable[[tf.Tensor], tf.Tensor]:
    """Saves the network without suppression as a SavedModel, which OpenVINO can convert."""
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    spec = tf.TensorSpec([None, 300, 300, 3], tf.float32)
    module.run = tf.function(lambda images: model(images, training=False), input_signature=[spec])
    tf.saved_model.save(module, str(path), signatures=module.run)
    return module.run


def _peer(python: str, peer: str, network: pathlib.Path) -> Callable[[int], float]:
    script = _PEER_MAIN.format(peer=peer)

    def seconds(batch: int) -> float:
        arguments = [python, "-c", script, str(batch), str(_REPEATS.value), str(network)]
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise ValueError(f"{python}: {reason}")
        return float(done.stdout.split()[-1])

    return seconds


def _report_suppression(network: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Prints the time of decoding and suppression, and its share of a forward pass."""
    forward = _least(network, tf.random.uniform([1, 300, 300, 3], 0, 255))
    decode = tf.function(DetectionDecoder(SSD300_VOC))
    rng = np.random.default_rng(0)
    for name, classes, background in (("trained-like", 20, 9.0), ("every box passes", 80, 0.0)):
        predictions = rng.normal(0, 1, (1, 8732, 5 + classes)).astype(np.float32)
        predictions[..., 4] += background
        if background:  # 12 objects, each detected by 8 neighboring boxes
            boxes = rng.integers(0, 8732 - 8, 12)[:, None] + np.arange(8)
            predictions[0, boxes, 5 + rng.integers(0, classes, 12)[:, None]] += 11
        else:  # nearly equal scores of about 1/81, just above the threshold of 0.01
            predictions[..., 4:] *= 0.1
        seconds = _least(decode, tf.constant(predictions))
        share = seconds / forward
        print(
            f"decode and suppress, {name:16} {seconds * 1e3:7.1f} ms, {share:.1%} of a forward pass"
        )


def _least(run: Callable[[tf.Tensor], object], images: tf.Tensor) -> float:
    run(images)
    times = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    run_script()
