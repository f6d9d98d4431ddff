"""Compares each step of the package with the original program, and writes a table.

Needs a build of the branch ssd of weiliu89/caffe, and `referee.cpp` linked with its library:

    python scripts/referee.py --driver referee --records RECORDS --images A.jpg B.jpg \
        --voc VOC_FOLDER --split train --convert convert_annoset \
        --coco_annotations A.json --coco_results D.json --golden tests/golden/original \
        --out table.md

A comparison whose inputs are not given is skipped. `--only` names the comparisons to run.
"""

import argparse
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
import referee_core as core  # noqa: E402
import referee_data as data  # noqa: E402
import referee_golden as golden  # noqa: E402
import referee_train as training  # noqa: E402
from PIL import Image  # noqa: E402
from referee_original import Original  # noqa: E402

from ssd_keras.config import SSD300_VOC, SSD512_VOC  # noqa: E402
from ssd_keras.data.pipeline import train_dataset  # noqa: E402

NETWORKS = (("SSD300_VOC", 21), ("SSD300_COCO", 81), ("SSD512_VOC", 21), ("SSD512_COCO", 81))


def comparisons(args: argparse.Namespace, original: Original) -> dict[str, list]:
    """Returns for each name of a comparison the functions that run it."""
    todo = {
        "boxes": [lambda: core.compare_boxes(original)],
        "losses": [
            lambda: core.compare_losses(original, SSD300_VOC, args.batches),
            lambda: core.compare_losses(original, SSD512_VOC, args.batches // 10),
        ],
        "detections": [lambda: core.compare_detections(original, SSD300_VOC)],
    }
    if args.records:

        def batches(size: int):
            return train_dataset(args.records, SSD300_VOC, size, repeat=True)

        todo["losses"].append(
            lambda: core.compare_real_losses(original, SSD300_VOC, batches(4), args.real_batches)
        )
        todo["solver"] = [lambda: core.compare_solver(original, SSD300_VOC, batches(2), args.steps)]
    if args.images:

        def pictures(size: int) -> np.ndarray:
            opened = [Image.open(path).convert("RGB").resize((size, size)) for path in args.images]
            return np.stack([np.asarray(image, np.float32) for image in opened])

        todo["networks"] = [
            lambda n=name, o=outputs: core.compare_network(original, n, o, pictures(int(n[3:6])))
            for name, outputs in NETWORKS
        ]
    if args.coco_results:
        todo["evaluation"] = [
            lambda: data.compare_evaluation(original, args.coco_annotations, args.coco_results)
        ]
    if args.voc:
        todo["draws"] = [
            lambda: data.compare_draws(
                original, args.voc, args.split, args.convert, args.records, args.samples, args.sizes
            )
        ]
    return {k: v for k, v in todo.items() if not args.only or k in args.only}


def main() -> None:
    """Runs the comparisons; the rows of each are written when it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", type=pathlib.Path, required=True)
    parser.add_argument("--convert", type=pathlib.Path, help="the original's convert_annoset")
    parser.add_argument("--records", help="record set made from the images of --voc")
    parser.add_argument("--voc", type=pathlib.Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", nargs="*", default=[])
    parser.add_argument("--coco_annotations", type=pathlib.Path)
    parser.add_argument("--coco_results", type=pathlib.Path)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--real_batches", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[300, 512])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--train", type=pathlib.Path, help="train both; file for losses and AP")
    parser.add_argument("--imagenet", type=pathlib.Path, help="ImageNet's convolutions, .npz")
    parser.add_argument("--eval_records", help="record set for the AP of --train")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--train_steps", type=int, default=150)
    parser.add_argument("--train_batch", type=int, default=8)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--golden", type=pathlib.Path, help="folder for the golden files")
    args = parser.parse_args()
    if args.voc and not (args.convert and args.records):
        parser.error("--voc needs --convert and --records")

    with tempfile.TemporaryDirectory() as folder, args.out.open("a") as table:
        original = Original(args.driver.resolve(), pathlib.Path(folder))
        if args.golden:
            golden.write(original, args.golden, args.convert)
        if args.train:
            outputs = 1 + len(data.read_card(args.records).labels)
            training.train(original, args, outputs, args.train_steps, args.train_batch)
        for name, functions in comparisons(args, original).items():
            for function in functions:
                start = time.perf_counter()
                for row in function():
                    print(*row, sep=" | ")
                    table.write(f"| {' | '.join(row)} |\n")
                table.flush()
                print(f"({name}: {time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
