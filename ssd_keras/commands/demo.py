"""Trains a small detector on synthetic images, and evaluates, exports and verifies it.

    ssd-keras demo --out=runs/demo

The demo runs one ssd-keras command per step and prints it first. The same commands work on any
other data set. An earlier demo in the folder is replaced.
"""

import itertools
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from absl import flags
from PIL import Image

from ssd_keras.data.records import read_samples
from ssd_keras.drawing import contact_sheet

_OUT = flags.DEFINE_string("out", "runs/demo", "Folder of the demo.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the images, the initial weights and the training.", lower_bound=0
)

# Training starts from random weights. Adam is used because the size of its steps does not depend
# on the scale of untrained features. conv1_1 and conv1_2 keep their random weights: their training
# at 300 x 300 pixels would take half of the time of a step.
RECIPE = (
    "--weights random --width 0.09 --freeze conv1_* --optimizer adam --learning_rate 2e-3 --cosine "
    "--warmup 20 --clip_norm 5 --batch_size 8 --augmentation flip_only "
    "--iterations 600 --eval_every 60"
)
PICTURES = 12
PRECISIONS = ("float32", "float16", "int8")


def run(*command: str | Path) -> None:
    """Prints a command and runs it.

    Args:
        command: The words after `ssd-keras`.

    Raises:
        subprocess.CalledProcessError: If the command fails.
    """
    words = [str(word) for word in command]
    print(f"\n$ ssd-keras {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "ssd_keras", *words], check=True)


def prepare(records: Path, images: int, seed: int) -> None:
    """Writes a record set of synthetic shapes.

    Args:
        records: Folder of the record set.
        images: Number of images.
        seed: Seed of the images.
    """
    options: list[str | Path] = ["--num_images", str(images), "--seed", str(seed), "--out", records]
    run("prepare", "--source", "shapes", *options)


def write_pictures(records: Path, folder: Path) -> None:
    """Writes the first images of a record set as JPEG files.

    Args:
        records: Folder of the record set.
        folder: Folder to create.
    """
    folder.mkdir()
    for sample in itertools.islice(read_samples(records), PICTURES):
        (folder / f"{sample.image_id}.jpg").write_bytes(sample.image)


def summarize(folder: Path, seconds: float) -> None:
    """Writes a contact sheet of the detections, and prints AP and the results of `verify`.

    Args:
        folder: Folder of the demo.
        seconds: Duration of the demo so far.
    """
    found = sorted((folder / "found").glob("*.jpg"))
    contact_sheet([Image.open(path) for path in found]).save(folder / "detections.png")
    shutil.copy(folder / "run" / "history.png", folder / "history.png")
    metrics = json.loads((folder / "metrics.json").read_text())
    files = json.loads((folder / "verification.json").read_text())["files"]
    print(f"\n{'class':16}{'AP@0.5':>8}")
    for label, values in metrics["classes"].items():
        print(f"{label:16}{values['ap_area']:8.3f}")
    print(
        f"{'mean':16}{metrics['mean_ap_area']:8.3f}   {metrics['images_per_second']:.0f} images/s"
    )
    print(f"\n{'file':24}{'MB':>8}{'AP':>8}{'boxes':>10}{'scores':>10}   (largest differences)")
    for file in files:
        line = f"{file['name']:24}{file['megabytes']:8.1f}{file['mean_ap']:8.3f}"
        if file["agreement"]:
            boxes, scores = (file["agreement"][f"{n}_difference"] for n in ("box", "score"))
            line += f"{boxes:10.1e}{scores:10.1e}   {'agrees' if file['agrees'] else 'DIFFERS'}"
        print(line)
    print(f"\n{seconds:.0f} s in total. See {folder}/detections.png and {folder}/history.png")


def interrupted() -> str:
    """Returns the message for Ctrl-C."""
    return f"{_OUT.value} holds the finished steps; the next demo starts from the beginning"


def main(words: list[str]) -> None:
    """Runs all steps of the demo."""
    del words
    start, folder, seed = time.monotonic(), Path(_OUT.value), _SEED.value
    if folder.exists() and any(folder.iterdir()) and not (folder / "train").is_dir():
        raise ValueError(
            f"out (={folder}) must be an empty folder or an earlier demo: name another folder"
        )
    if folder.exists():
        print(f"removing the earlier demo in {folder}")
        shutil.rmtree(folder)
    train, heldout = folder / "train", folder / "heldout"
    model, exported = folder / "run" / "best.keras", folder / "saved_model"
    prepare(train, 1500, seed)
    prepare(heldout, 200, 1_000_000 + seed)
    recipe = [*RECIPE.split(), "--seed", str(seed)]
    run("train", "--records", train, "--run_dir", folder / "run", *recipe)
    evaluate: list[str | Path] = ["--records", heldout, "--out", folder / "metrics.json"]
    run("evaluate", "--model", model, *evaluate)
    run("export", "saved_model", "--model", model, "--out", exported)
    precisions: list[str | Path] = [
        "--precision",
        ",".join(PRECISIONS),
        "--calibration_records",
        train,
    ]
    run("export", "tflite", "--model", model, "--out", folder / "detector.tflite", *precisions)
    write_pictures(heldout, folder / "pictures")
    detect: list[str | Path] = ["--model", exported, "--out", folder / "found"]
    run("detect", *detect, folder / "pictures")
    files = [exported, *(folder / f"detector_{precision}.tflite" for precision in PRECISIONS)]
    verify: list[str | Path] = ["--records", heldout, "--limit", "50", "--out", folder]
    run("verify", "--model", model, *verify, *files)
    summarize(folder, time.monotonic() - start)
