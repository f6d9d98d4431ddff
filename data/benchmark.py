"""Measures the CPU time of the augmentation, and compares it with torchvision's transforms.

    python data/benchmark.py --records=records/voc2007 --torch_python=/path/with/torch/bin/python

--torch_python is the Python interpreter of an environment with `pip install -e '.[benchmark]'`.
Without this flag, torchvision is left out. The table has these rows:

- decode: only decoding, the lower bound;
- ssd, ssd_no_expand, ssd_fast, flip_only, none: the augmentations;
- none + random_distort + ...: the first ops of `ssd`, one more in each row;
- ssd and ssd_fast with more threads, for the throughput on several cores;
- torchvision.

Each round runs every row once, so that other work on the machine affects all rows. The table has
medians over the rounds. The last line is the mean difference between `ssd_fast` and `ssd`.
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
_CONFIG = flags.DEFINE_enum(
    "config", "SSD300_VOC", list(CONFIGS), "Config whose image size is used."
)
_IMAGES = flags.DEFINE_integer("images", 100, "Images in a round.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds.", lower_bound=1)
_THREADS = flags.DEFINE_list(
    "threads",
    ["1", "2"],
    "Numbers of threads: the first for all rows, the others for ssd and ssd_fast.",
)
_TORCH = flags.DEFINE_string(
    "torch_python", None, "Python interpreter with torchvision. Default: skip torchvision."
)

Pass = Callable[[], tuple[float, float]]  # runs one round; returns CPU and wall time in seconds


def tensorflow_pass(records: list[bytes], ops: tuple[Op, ...] | None, threads: int) -> Pass:
    """Creates a pass of this package's augmentation.

    Args:
        records: Serialized records.
        ops: Augmentation ops; None only decodes the images.
        threads: Number of threads.

    Returns:
        The pass.
    """
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
    """Creates a pass of torchvision's transforms, which run in another process.

    Args:
        records: Serialized records.
        folder: Folder for the file with the images and boxes for that process.

    Returns:
        The pass. It raises a `ValueError` if the process has ended.
    """
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
            raise ValueError(
                f"--torch_python={_TORCH.value} cannot run {script}: see the error above"
            )
        return float(answer), time.perf_counter() - start

    return run


def fast_difference(records: list[bytes]) -> float:
    """Returns the mean absolute difference between `ssd_fast` and `ssd`, with equal seeds.

    Args:
        records: Serialized records.

    Returns:
        The difference in levels (0..255).
    """
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
    """Runs all rounds and prints the table."""
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
        f"CPU ms per image: median (minimum); images per second: median (maximum); "
        f"{len(records)} images, {_ROUNDS.value} rounds, {threads} thread(s) unless named"
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
    print(f"ssd_fast differs from ssd by {fast_difference(records):.2f} levels on average")


if __name__ == "__main__":
    run_script()
