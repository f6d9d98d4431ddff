"""Compares the time of `detect` with that of the `encoded` signature alone.

scripts/detect_speed.py --model=SAVED_MODEL --repeats=3 FOLDER ...

Both run alternately, so that other work on the machine slows both. All files are read once before
the measurement.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.files import detect_files
from ssd_keras.inference.inputs import find_images
from ssd_keras.progress import batched


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("folders", nargs="+")
    args = parser.parse_args()
    paths = find_images(args.folders)
    detector = load_detector(args.model)
    encoded = [path.read_bytes() for path in paths]

    def signature():
        for batch in batched(encoded, args.batch_size):
            detector.detect(batch)

    def with_files():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out")
            detect_files(detector, paths, out, score_threshold=0.6, batch_size=args.batch_size)

    times = {"signature": [], "detect": []}
    processor = {"signature": [], "detect": []}
    signature()
    with_files()
    for _ in range(args.repeats):
        for name, function in (("signature", signature), ("detect", with_files)):
            start, used = time.perf_counter(), time.process_time()
            function()
            times[name].append((time.perf_counter() - start) / len(paths) * 1e3)
            processor[name].append((time.process_time() - used) / len(paths) * 1e3)
    for name, values in times.items():
        used = np.median(processor[name])
        print(
            f"{name:10} {np.median(values):6.2f} ms per image (smallest: {min(values):.2f}), "
            f"processor time {used:.2f} ms"
        )
    print(f"ratio of medians {np.median(times['detect']) / np.median(times['signature']):.2f}")


if __name__ == "__main__":
    main()
