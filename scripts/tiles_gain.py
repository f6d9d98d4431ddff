"""Compares a detector with and without tiles on mosaics of the images of a record set.

scripts/tiles_gain.py --model=runs/demo/run/best.keras --records=runs/demo/heldout --side=4

A mosaic has `side` x `side` images, so its objects are small for the network.
"""

import argparse
import time

import numpy as np

from ssd_keras.data.card import read_card
from ssd_keras.data.records import Sample, read_samples
from ssd_keras.evaluation.voc import voc_average_precision
from ssd_keras.images import decode_image
from ssd_keras.inference.detector import load_detector
from ssd_keras.inference.tiles import parse_tiles, tiled_detector
from ssd_keras.progress import batched

_CELL = 300


def mosaic(samples, side):
    """Joins side * side samples into one image, and returns it with its ground truth."""
    image = np.zeros((side * _CELL, side * _CELL, 3), np.uint8)
    boxes = []
    for k, sample in enumerate(samples):
        y, x = divmod(k, side)
        pixels = decode_image(sample.image).numpy()[:_CELL, :_CELL]
        h, w = pixels.shape[:2]
        image[y * _CELL : y * _CELL + h, x * _CELL : x * _CELL + w] = pixels
        offset = np.array([y, x, y, x]) * _CELL
        boxes.append(sample.boxes * ([sample.height, sample.width] * 2) + offset)
    size = side * _CELL
    labels = np.concatenate([s.labels for s in samples])
    difficult = np.concatenate([s.difficult for s in samples])
    truth = Sample(b"", "mosaic", size, size, np.concatenate(boxes) / size, labels, difficult)
    return image, truth


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--records", required=True)
    parser.add_argument("--side", type=int, default=4)
    parser.add_argument("--tiles", nargs="+", default=["2x2", "4x4"])
    args = parser.parse_args()
    labels = read_card(args.records).labels
    groups = batched(read_samples(args.records), args.side**2)
    pairs = [mosaic(group, args.side) for group in groups if len(group) == args.side**2]
    plain = load_detector(args.model)
    detectors = {"whole image": plain}
    detectors |= {text: tiled_detector(plain, parse_tiles(text)) for text in args.tiles}
    for name, detector in detectors.items():
        detector.detect_pixels([pairs[0][0]])
        start = time.process_time()
        found = [detector.detect_pixels([image])[0] for image, _ in pairs]
        seconds = time.process_time() - start
        ap = voc_average_precision(found, [truth for _, truth in pairs], labels).mean_ap_area
        cost = seconds / len(pairs) * 1e3
        print(f"{name:12} area mAP {ap:.4f}  {cost:8.1f} ms of processor time per image")


if __name__ == "__main__":
    main()
