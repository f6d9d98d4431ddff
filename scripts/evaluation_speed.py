"""Measures the processor time and the memory of the evaluators on random detections.

scripts/evaluation_speed.py --images=4952 --detections=200 --classes=20
"""

import argparse
import resource
import time

import numpy as np

from ssd_keras.config import SSD300_VOC
from ssd_keras.data.records import Sample
from ssd_keras.evaluation.errors import confusion_matrix, error_profile
from ssd_keras.evaluation.matches import match_table
from ssd_keras.evaluation.sensitivity import (
    box_area,
    calibration,
    mean_normalized_ap,
    recall_by_map,
)
from ssd_keras.evaluation.tide import tide_gains
from ssd_keras.evaluation.voc import voc_result


def boxes_of(rng, count):
    low = rng.random((count, 2)) * 0.7
    return np.concatenate([low, low + rng.uniform(0.05, 0.3, (count, 2))], axis=1)


def images(count, detections, classes):
    """Yields detections, of which the first are near the objects, and the sample of each image."""
    rng = np.random.default_rng(0)
    for k in range(count):
        g = int(rng.integers(1, 5))
        truth = boxes_of(rng, g)
        labels = rng.integers(1, classes + 1, g)
        boxes = boxes_of(rng, detections)
        ids = rng.integers(1, classes + 1, detections)
        boxes[:g], ids[:g] = truth + rng.normal(0, 0.01, (g, 4)), labels
        found = {"boxes": np.float32(boxes), "scores": rng.random(detections), "classes": ids}
        size = (375, 500)
        yield found, Sample(b"", str(k), *size, np.float32(truth), labels, np.zeros(g, bool))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4952)
    parser.add_argument("--detections", type=int, default=200)
    parser.add_argument("--classes", type=int, default=20)
    args = parser.parse_args()
    labels = [f"class {k}" for k in range(1, args.classes + 1)]

    start = time.process_time()
    for _ in images(args.images, args.detections, args.classes):
        pass
    making = time.process_time() - start
    memory = peak()
    start = time.process_time()
    truths = []

    def founds():
        for found, truth in images(args.images, args.detections, args.classes):
            truths.append(truth)
            yield found

    def samples():
        while True:
            if not truths:
                return
            yield truths.pop()

    table = match_table(founds(), samples(), labels)
    report("rows", time.process_time() - start - making)
    print(f"peak memory {memory:.0f} MB before, {peak():.0f} MB after the rows")
    steps = {
        "average precision": lambda: voc_result(table),
        "kinds of errors": lambda: [error_profile(table, k + 1) for k in range(args.classes)],
        "confusion": lambda: confusion_matrix(table),
        "sensitivity to size": lambda: mean_normalized_ap(table, box_area(table.objects)),
        "recall by map": lambda: recall_by_map(table, SSD300_VOC),
        "calibration": lambda: calibration(table),
        "gains": lambda: tide_gains(table),
    }
    for name, step in steps.items():
        start = time.process_time()
        step()
        report(name, time.process_time() - start)
    print(f"peak memory {peak():.0f} MB")


def report(name, seconds):
    print(f"{name:20} {seconds:6.2f} s")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
