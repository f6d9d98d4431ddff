"""Measures the augmentation in CPU-milliseconds an image, beside torchvision's on the same files.

    python data/benchmark.py --records=records/voc2007 --torch_python=/path/with/torch/bin/python

Rows are decoding alone (the floor), the variants, and `ssd` built up op by op. Every round runs all
rows once, so that other work on the machine falls on all of them; the median round counts.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import app, flags

from ssd_keras.augment import AUGMENTATIONS, SSD, Op, augment
from ssd_keras.commands import command
from ssd_keras.config import CONFIGS
from ssd_keras.records import parse_example, shard_paths
from ssd_keras.view import decode

_RECORDS = flags.DEFINE_string("records", None, "Record set with the images.", required=True)
_CONFIG = flags.DEFINE_enum("config", "SSD300_VOC", list(CONFIGS), "Gives the size.")
_IMAGES = flags.DEFINE_integer("images", 100, "Images of a round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 1, "Images of ours made at a time.", lower_bound=1)
_TORCH = flags.DEFINE_string("torch_python", None, "A Python with torchvision to compare with.")

Pass = Callable[[], float]


def tensorflow_pass(records: list[bytes], ops: tuple[Op, ...] | None) -> Pass:
    """One pass of ours, or only decoding (`ops` None): gives its CPU-seconds."""
    config = CONFIGS[_CONFIG.value]

    def make(index: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        sample = parse_example(record)
        if ops is None:
            return decode(sample["image"], tf.stack([0, 0, sample["height"], sample["width"]]))
        return augment(sample, config, tf.stack([index, 0]), ops)["image"]

    dataset = tf.data.Dataset.from_tensor_slices(records).cache().repeat(_ROUNDS.value + 1)
    dataset = dataset.enumerate().map(make, num_parallel_calls=_THREADS.value)
    iterator = iter(dataset)

    def run() -> float:
        start = time.process_time()
        for _ in range(len(records)):
            next(iterator)
        return time.process_time() - start

    return run


def torchvision_pass(records: list[bytes], folder: str) -> Pass:
    """One pass of torchvision's, in its own process."""
    arrays: dict[str, np.ndarray] = {"count": np.array(len(records))}
    for k, record in enumerate(records):
        sample = parse_example(record)
        arrays[f"image{k}"] = np.frombuffer(sample["image"].numpy(), np.uint8)
        arrays[f"boxes{k}"] = sample["boxes"].numpy()
    path = os.path.join(folder, "samples.npz")
    np.savez(path, **arrays)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "benchmark_torchvision.py")
    size = CONFIGS[_CONFIG.value].image_size
    worker = subprocess.Popen(
        [_TORCH.value, script, path, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run() -> float:
        worker.stdin.write("\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
        if not answer:
            raise ValueError(f"--torch_python={_TORCH.value} cannot run {script}: see its error")
        return float(answer)

    return run


@command
def main(argv: list[str]) -> None:
    """Prints the table."""
    records = [
        record.numpy()
        for record in tf.data.TFRecordDataset(shard_paths(_RECORDS.value)).take(_IMAGES.value)
    ]
    passes = {"decode": tensorflow_pass(records, None)}
    for name, ops in AUGMENTATIONS.items():
        passes[name] = tensorflow_pass(records, ops)
    for count in range(1, len(SSD)):
        row = "  ".join(["none", *(f"+ {op.__name__}" for op in SSD[:count])])
        passes[row] = tensorflow_pass(records, SSD[:count])
    with tempfile.TemporaryDirectory() as folder:
        if _TORCH.value:
            passes["torchvision"] = torchvision_pass(records, folder)
        for run in passes.values():  # warm up
            run()
        rounds = [{name: run() for name, run in passes.items()} for _ in range(_ROUNDS.value)]
    print(f"CPU-ms an image, {len(records)} images, {_ROUNDS.value} rounds: median (least)")
    for name in passes:
        times = np.array([round_[name] for round_ in rounds]) / len(records) * 1e3
        ratio = ""
        if _TORCH.value:
            ratios = [round_["torchvision"] / round_[name] for round_ in rounds]
            ratio = f"  torchvision / this = {np.median(ratios):.2f}"
        print(f"{np.median(times):7.2f} ({times.min():.2f}){ratio}  {name}")


if __name__ == "__main__":
    app.run(main)
