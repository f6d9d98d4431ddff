"""Command: does the page find in a browser what the Python interpreter finds in the same file?

    npm install
    python check.py --model detector.tflite --chromium /usr/bin/chromium street.jpg [MORE ...]

Opens the page in headless Chromium, gives it each picture as it is and as a PNG of the same
pixels, compares with the interpreter and writes a screenshot. Exit code 1 if a detection above
0.05 has no like: the same class, edges and score within 0.001. In 8 bits, where scores tie and
either box may be kept, nine of ten above 0.5 must have one of the same class, edges within 0.1.
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

WORDS = "pictures"

_MODEL = flags.DEFINE_string("model", None, "A TFLite file of kind detections.", required=True)
_CHROMIUM = flags.DEFINE_string("chromium", "/usr/bin/chromium", "The browser.")
_SCREENSHOT = flags.DEFINE_string("screenshot", "browser.png", "Picture of the page to write.")


@dataclasses.dataclass(frozen=True, slots=True)
class Tolerance:
    """How the page may differ: from which score on, by how much, in what share of detections."""

    least: float
    edges: float
    score: float
    share: float


FLOAT = Tolerance(least=0.05, edges=1e-3, score=1e-3, share=0.0)
EIGHT_BITS = Tolerance(least=0.5, edges=0.1, score=1.0, share=0.1)


def compare(
    page: list[dict[str, Any]], labels: list[str], expected: dict[str, np.ndarray], least: float
) -> np.ndarray:
    """What is the nearest to each detection of the interpreter, and to each of the page?

    Args:
        page: Its detections.
        labels: Class names.
        expected: The interpreter's: boxes [N, 4], scores [N], classes [N] from 1.
        least: Score above which a detection counts.

    Returns:
        float64 [M, 2], for each detection of either above `least`: the differences of box and score
        to the nearest box of its class of the other; infinite if there is none.
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
                for other_label, other, other_score in theirs
                if other_label == label
            ),
            default=(np.inf, np.inf),
        )
        for ours, theirs in (sides, sides[::-1])
        for label, box, score in ours
        if score > least
    ]
    return np.array(rows).reshape(-1, 2)


def browse(model: Path, pictures: list[Path]) -> dict[str, Any]:
    """What check.mjs prints."""
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
    """Compares, and prints a table."""
    paths = [Path(name) for name in words]
    if not paths:
        raise ValueError("name at least one picture")
    detector = TFLiteDetector(_MODEL.value)
    labels = detector.description["labels"]
    tolerance = EIGHT_BITS if detector.description["precision"] in ("dynamic", "int8") else FLOAT
    size = detector.description["config"]["image_size"]
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for i, path in enumerate(paths):
            copies.append(Path(folder, f"{i}.png"))
            to_rgb(Image.open(path)).save(copies[-1])
        expected = detector(warp(p.read_bytes(), size).numpy() for p in [*copies, *paths])
        result = browse(Path(_MODEL.value), [*copies, *paths])
    agrees, compared = not result["problems"] and not result["elsewhere"], 0
    for problem in (*result["problems"], *(f"asked {url}" for url in result["elsewhere"])):
        print(problem)
    print(f"{'picture':32}{'detections':>12}{'boxes':>10}{'scores':>10}{'beyond':>8}")
    for i, found in enumerate(result["found"]):
        name = paths[i % len(paths)].name + (" as PNG" if i < len(paths) else "")
        rows = compare(found, labels, expected[i], tolerance.least)
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
        print(f"nothing to compare: no detection above {tolerance.least}")
    return 0 if agrees and compared else 1


if __name__ == "__main__":
    run_script()
