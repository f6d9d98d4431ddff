"""Compares the detections of the page in a browser with those of the Python interpreter.

    npm install
    python check.py --model=detector.tflite --chromium=/usr/bin/chromium street.jpg [MORE ...]

Opens the page in headless Chromium, opens each image file and a PNG copy of its pixels on the page,
and writes a screenshot. For a float file, every detection with a score above 0.05 must have a
counterpart of the same class on the other side, with differences of at most 0.001 in edges and
score. An 8-bit file often has equal scores, so either of two overlapping boxes may be kept. For an
8-bit file, nine of ten detections with a score above 0.5 must therefore have a counterpart of the
same class with edges within 0.1. The exit code is 1 if the page and the interpreter differ.
"""

import dataclasses
import json
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image
from serve import FOLDER, server

from ssd_keras.commands.common import run_script
from ssd_keras.export.tflite.interpreter import TFLiteDetector
from ssd_keras.images import to_rgb, warp

WORDS = "IMAGES ..."

_MODEL = flags.DEFINE_string("model", None, "TFLite file of kind detections.", required=True)
_CHROMIUM = flags.DEFINE_string("chromium", "/usr/bin/chromium", "Executable of the browser.")
_SCREENSHOT = flags.DEFINE_string("screenshot", "browser.png", "PNG for the screenshot.")


@dataclasses.dataclass(frozen=True, slots=True)
class Tolerance:
    """Allowed differences between the page and the interpreter.

    Attributes:
        min_score: Score above which a detection is compared.
        edges: Allowed difference of a box edge, as a fraction of the image.
        score: Allowed difference of a score.
        share: Fraction of the detections whose differences may be larger.
    """

    min_score: float
    edges: float
    score: float
    share: float


FLOAT = Tolerance(min_score=0.05, edges=1e-3, score=1e-3, share=0.0)
EIGHT_BITS = Tolerance(min_score=0.5, edges=0.1, score=1.0, share=0.1)


def compare(
    page: list[dict[str, Any]], labels: list[str], expected: dict[str, np.ndarray], min_score: float
) -> np.ndarray:
    """Finds the nearest counterpart of each detection of the page and of the interpreter.

    Args:
        page: The detections of the page: `label`, `score` and `box` of each.
        labels: Class names; `labels[0]` is class 1.
        expected: The detections of the interpreter: `boxes` [N, 4], `scores` [N] and `classes` [N].
        min_score: Score above which a detection is compared.

    Returns:
        float64 [M, 2]. Each row has the differences in box and score between a detection and its
        nearest counterpart of the same class on the other side; infinite if there is none.
    """
    sides = [
        [(d["label"], np.array(d["box"]), d["score"]) for d in page],
        [
            (labels[c - 1], box, score)
            for c, box, score in zip(
                expected["classes"], expected["boxes"], expected["scores"], strict=True
            )
        ],
    ]
    rows = [
        min(
            (
                (float(abs(box - other).max()), float(abs(score - other_score)))
                for other_label, other, other_score in counterparts
                if other_label == label
            ),
            default=(np.inf, np.inf),
        )
        for detections, counterparts in (sides, sides[::-1])
        for label, box, score in detections
        if score > min_score
    ]
    return np.array(rows).reshape(-1, 2)


def browse(model: Path, pictures: list[Path]) -> dict[str, Any]:
    """Opens the page with check.mjs, and returns the JSON that it prints.

    Args:
        model: The TFLite file.
        pictures: Image files.

    Returns:
        `found`, the detections of each image; `seconds`, the status line of each image; `threads`,
        whether the page used threads; `problems`, the errors of the page; and `elsewhere`, the
        URLs of other sites that the page requested.

    Raises:
        RuntimeError: If check.mjs fails.
    """
    with server(model, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://localhost:{running.server_port}/"
        node = ["node", FOLDER / "check.mjs", url, _CHROMIUM.value, _SCREENSHOT.value, *pictures]
        done = subprocess.run(node, capture_output=True, text=True, check=False)
        running.shutdown()
    if done.returncode:
        raise RuntimeError(f"the page failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def main(words: list[str]) -> int:
    """Compares the page with the interpreter and prints a table."""
    paths = [Path(name) for name in words]
    if not paths:
        raise ValueError("give at least one image")
    detector = TFLiteDetector(_MODEL.value)
    labels = detector.description["labels"]
    tolerance = EIGHT_BITS if detector.description["precision"] in ("dynamic", "int8") else FLOAT
    size = detector.image_size
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for i, path in enumerate(paths):
            copies.append(Path(folder, f"{i}.png"))
            to_rgb(Image.open(path)).save(copies[-1])
        expected = detector(warp(p.read_bytes(), size).numpy() for p in [*copies, *paths])
        result = browse(Path(_MODEL.value), [*copies, *paths])
    agrees, compared = not result["problems"] and not result["elsewhere"], 0
    requests = (f"the page requested {url}" for url in result["elsewhere"])
    for problem in (*result["problems"], *requests):
        print(problem)
    print(f"{'image':32}{'detections':>12}{'boxes':>10}{'scores':>10}{'beyond':>8}")
    for i, found in enumerate(result["found"]):
        name = paths[i % len(paths)].name + (" as PNG" if i < len(paths) else "")
        rows = compare(found, labels, expected[i], tolerance.min_score)
        beyond = int((rows > (tolerance.edges, tolerance.score)).any(axis=1).sum())
        fine = beyond <= tolerance.share * len(rows)
        agrees &= fine
        compared += len(rows)
        boxes, scores = rows.max(axis=0, initial=0)
        print(
            f"{name:32}{len(rows):12}{boxes:10.1e}{scores:10.1e}{beyond:8}   "
            f"{'agrees' if fine else 'DIFFERS'}; {result['seconds'][i]}"
        )
    print(f"threads: {'yes' if result['threads'] else 'no'}; {_SCREENSHOT.value}")
    if not compared:
        print(f"nothing to compare: no detection above {tolerance.min_score}")
    return 0 if agrees and compared else 1


if __name__ == "__main__":
    run_script()
