"""Compares detection over Apache Beam's in-memory runner with a plain loop over the shards.

scripts/beam_speed.py --model=SAVED_MODEL --repeats=3 FOLDER ...

Both load the model and write 16 shards; they run in turn.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path

import numpy as np

from ssd_keras.beam_shards import run_over_beam
from ssd_keras.inference.inputs import find_images
from ssd_keras.inference.shards import shard_detector, split_shards

COUNT = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    paths = [path.absolute() for path in find_images(args.folders)]
    shards = list(enumerate(split_shards(paths, COUNT)))

    def plain(start):
        process = start()
        for shard in shards:
            list(process(shard))

    def beam(start):
        run_over_beam(start, shards, "DirectRunner", [])

    times = {"plain": [], "beam": []}
    for _ in range(args.repeats + 1):
        for name, function in (("plain", plain), ("beam", beam)):
            with tempfile.TemporaryDirectory() as folder:
                start = functools.partial(
                    shard_detector, Path(args.model).absolute(), folder, COUNT
                )
                begin = time.perf_counter()
                function(start)
                times[name].append((time.perf_counter() - begin) / len(paths) * 1e3)
    for name, values in times.items():
        print(f"{name:6} {np.median(values[1:]):6.2f} ms a picture ({min(values[1:]):.2f} at best)")
    ratio = np.median(times["beam"][1:]) / np.median(times["plain"][1:])
    print(f"ratio of medians {ratio:.2f}")


if __name__ == "__main__":
    main()
