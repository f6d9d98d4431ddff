"""Measures the augmentation in CPU-milliseconds an image, beside torchvision's on the same files.

    python data/benchmark.py --records=records/voc2007 --torch_python=/path/with/torch/bin/python

--torch_python is a Python with `pip install -e '.[benchmark]'`. Rows are decoding (the floor),
the variants, `ssd` built up op by op, and the variants again with more threads, whose images a
second of wall time show how they grow with cores. Every round runs all rows once, so that other
work on the machine falls on all of them; the median round counts. Last comes the difference of
`ssd_fast` from `ssd`.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags

from ssd_keras.augmentation.ops import AUGMENTATIONS, SSD_FAST_OPS, SSD_OPS, Op, augment
from ssd_keras.augmentation.view import decode_window
from ssd_keras.commands.common import run_script
from ssd_keras.config import CONFIGS
from ssd_keras.data.records import parse_example, shard_paths

_RECORDS = flags.DEFINE_string("records", None, "Record set with the images.", required=True)
_CONFIG = flags.DEFINE_enum("config", "SSD300_VOC", list(CONFIGS), "Gives the size.")
_IMAGES = flags.DEFINE_integer("images", 100, "Images of a round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)
_THREADS = flags.DEFINE_list(
    "threads", ["1", "2"], "Images of ours made at a time; all rows with the first number."
)
_TORCH = flags.DEFINE_string("torch_python", None, "A Python with torchvision to compare with.")

Pass = Callable[[], tuple[float, float]]


def tensorflow_pass(records: list[bytes], ops: tuple[Op, ...] | None, threads: int) -> Pass:
    """One pass of ours, or only decoding (`ops` None): gives its CPU-seconds and wall seconds."""
    config = CONFIGS[_CONFIG.value]

    def make(index: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        sample = parse_example(record)
        if ops is None:
            return decode_window(
                sample["image"], tf.stack([0, 0, sample["height"], sample["width"]])
            )
        return augment(sample, config, tf.stack([index, 0]), ops)["image"]

    dataset = tf.data.Dataset.from_tensor_slices(records).cache().repeat(_ROUNDS.value + 1)
    dataset = dataset.enumerate().map(make, num_parallel_calls=threads)
    iterator = iter(dataset)

    def run() -> tuple[float, float]:
        start = time.process_time(), time.perf_counter()
        for _ in range(len(records)):
            next(iterator)
        return time.process_time() - start[0], time.perf_counter() - start[1]

    return run


def torchvision_pass(records: list[bytes], folder: str) -> Pass:
    """One pass of torchvision's, in its own process."""
    arrays: dict[str, np.ndarray] = {"count": np.array(len(records))}
    for k, record in enumerate(records):
        sample = parse_example(record)
        arrays[f"image{k}"] = np.frombuffer(sample["image"].numpy(), np.uint8)
        arrays[f"boxes{k}"] = sample["boxes"].numpy()
    path = os.path.join(folder, "samples.npz")
    np.savez(path, allow_pickle=False, **arrays)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "benchmark_torchvision.py")
    size = CONFIGS[_CONFIG.value].image_size
    worker = subprocess.Popen(
        [_TORCH.value, script, path, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run() -> tuple[float, float]:
        start = time.perf_counter()
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
        if not answer:
            raise ValueError(f"--torch_python={_TORCH.value} cannot run {script}: see its error")
        return float(answer), time.perf_counter() - start

    return run


def difference_of_fast(records: list[bytes]) -> float:
    """Mean difference of `ssd_fast` from `ssd` with the same draws, in levels."""
    config = CONFIGS[_CONFIG.value]
    differences = []
    for index, record in enumerate(records):
        one, other = (
            augment(parse_example(record), config, [index, 0], ops)["image"]
            for ops in (SSD_OPS, SSD_FAST_OPS)
        )
        differences.append(np.abs(one - other).mean())
    return float(np.mean(differences))


def main(words: list[str]) -> None:
    """Prints the table."""
    records = [
        record.numpy()
        for record in tf.data.TFRecordDataset(shard_paths(_RECORDS.value)).take(_IMAGES.value)
    ]
    threads, *more_threads = map(int, _THREADS.value)
    passes = {"decode": tensorflow_pass(records, None, threads)}
    for name, ops in AUGMENTATIONS.items():
        passes[name] = tensorflow_pass(records, ops, threads)
    for count in range(1, len(SSD_OPS)):
        row = "  ".join(["none", *(f"+ {op.__name__}" for op in SSD_OPS[:count])])
        passes[row] = tensorflow_pass(records, SSD_OPS[:count], threads)
    for count in more_threads:
        for name in ("ssd", "ssd_fast"):
            row = f"{name}, {count} threads"
            passes[row] = tensorflow_pass(records, AUGMENTATIONS[name], count)
    with tempfile.TemporaryDirectory() as folder:
        if _TORCH.value:
            passes["torchvision"] = torchvision_pass(records, folder)
        for run in passes.values():  # warm up
            run()
        rounds = [{name: run() for name, run in passes.items()} for _ in range(_ROUNDS.value)]
    print(
        f"CPU-ms an image: median (least); images a second: median (most); {len(records)} images, "
        f"{_ROUNDS.value} rounds, {threads} thread(s) where none are named"
    )
    for name in passes:
        cpu, wall = np.array([round_[name] for round_ in rounds]).T
        times, rates = cpu / len(records) * 1e3, len(records) / wall
        ratio = ""
        if _TORCH.value:
            ratios = [round_["torchvision"][0] / round_[name][0] for round_ in rounds]
            ratio = f"  torchvision / this = {np.median(ratios):.2f}"
        print(
            f"{np.median(times):7.2f} ({times.min():.2f})  {np.median(rates):7.1f} "
            f"({rates.max():.1f}){ratio}  {name}"
        )
    print(f"ssd_fast differs from ssd by {difference_of_fast(records):.2f} levels in the mean")


if __name__ == "__main__":
    run_script()
