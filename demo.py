"""The main job on built-in data, from nothing to a measured, exported detector. Run by `make demo`.

Every step is a command that works on any other data set too; each is printed before it runs.
"""

import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

# From random weights, so Adam, whose steps do not depend on the scale of untrained features. Half
# of a step's time would go into conv1_1 and conv1_2, on 300 x 300 cells: they stay as drawn.
RECIPE = (
    "--width 0.09 --freeze conv1_* --optimizer adam --learning_rate 2e-3 --cosine "
    "--warmup 20 --clip_norm 5 --batch_size 8 --augmentation flip_only "
    "--iterations 600 --eval_every 60"
)
PICTURES = 12
PRECISIONS = ("float32", "float16", "int8")


def run(*command: str | Path) -> None:
    """Prints a command and runs it; stops the demo if it fails."""
    words = [str(word) for word in command]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
    subprocess.run([sys.executable, *words], check=True, env=quiet)


def prepare(records: Path, images: int, seed: int) -> None:
    """Writes a record set of shapes."""
    options = ["--num_images", str(images), "--seed", str(seed), "--out", records]
    run("data/prepare.py", "--source", "shapes", *options)


def write_pictures(records: Path, folder: Path) -> None:
    """Some pictures of a record set as files, as a user has them."""
    from ssd_keras.records import read_samples

    folder.mkdir()
    for sample in itertools.islice(read_samples(records), PICTURES):
        (folder / f"{sample.image_id}.jpg").write_bytes(sample.image)


def summarize(folder: Path, seconds: float) -> None:
    """The contact sheet and the table."""
    from PIL import Image

    from ssd_keras.visualize import contact_sheet

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
    print(f"\n{'file':24}{'MB':>8}{'AP':>8}{'boxes':>10}{'scores':>10}   largest differences")
    for file in files:
        line = f"{file['name']:24}{file['megabytes']:8.1f}{file['mean_ap']:8.3f}"
        if file["agreement"]:
            boxes, scores = (file["agreement"][f"{n}_difference"] for n in ("box", "score"))
            line += f"{boxes:10.1e}{scores:10.1e}   {'agrees' if file['agrees'] else 'DIFFERS'}"
        print(line)
    print(f"\n{seconds:.0f} s in all. Look at {folder}/detections.png and {folder}/history.png")


def main() -> None:
    """Runs the demo: demo.py [SEED]."""
    start = time.monotonic()
    folder, seed = Path("runs/demo"), int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if folder.exists():
        print(f"removing the last demo, {folder}")
        shutil.rmtree(folder)
    train, heldout = folder / "train", folder / "heldout"
    model, exported = folder / "run" / "best.keras", folder / "saved_model"
    prepare(train, 1500, seed)
    prepare(heldout, 200, 1_000_000 + seed)
    recipe = [*RECIPE.split(), "--seed", str(seed)]
    run("-m", "ssd_keras.train", "--records", train, "--run_dir", folder / "run", *recipe)
    evaluate = ["--records", heldout, "--out", folder / "metrics.json"]
    run("-m", "ssd_keras.evaluate", "--model", model, *evaluate)
    run("export/saved_model.py", "--model", model, "--out", exported)
    precisions = ["--precision", ",".join(PRECISIONS), "--calibration_records", train]
    run("export/tflite.py", "--model", model, "--out", folder / "detector.tflite", *precisions)
    write_pictures(heldout, folder / "pictures")
    detect = ["--model", exported, "--out", folder / "found"]
    run("-m", "ssd_keras.detect", *detect, folder / "pictures")
    files = [exported, *(folder / f"detector_{precision}.tflite" for precision in PRECISIONS)]
    verify = ["--records", heldout, "--limit", "50", "--out", folder]
    run("export/verify.py", "--model", model, *verify, *files)
    summarize(folder, time.monotonic() - start)


if __name__ == "__main__":
    main()
