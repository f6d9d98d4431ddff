"""Runs the Python code of docs/own_data.md in its order, with a small network and few steps."""

import csv
import re
import runpy

import keras
import numpy as np
import pytest
from PIL import Image

from ssd_keras.data.prepare import open_source, prepare_records
from tests.processes import ROOT
from tests.test_documents import python_blocks

# Replacements that make the code of the page faster. Each replaced text must occur on the page.
SMALLER = {
    "ssd_keras.SSD300_VOC": "ssd_keras.SSDConfig.for_image_size(128)",
    'weights="imagenet"': "width=1 / 16",
    "padded_batch(32)": "padded_batch(2)",
    "steps_per_epoch=100": "steps_per_epoch=2",
    "(288, 512)": "(128, 160)",
}
LABELS = ("blue", "red")


def write_set(folder):
    """Six images of 60 x 80 pixels with a square of 30 pixels each."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for k in range(6):
        pixels = np.full((60, 80, 3), 128, np.uint8)
        top, left, label = 4 * k, 8 * k, LABELS[k % 2]
        pixels[top : top + 30, left : left + 30] = (0, 0, 255) if label == "blue" else (255, 0, 0)
        Image.fromarray(pixels).save(folder / "images" / f"{k}.png")
        rows.append([f"{k}.png", 80, 60, label, left, top, left + 30, top + 30])
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        writer.writerows(rows)


@pytest.fixture
def policy():
    yield
    keras.config.set_dtype_policy("float32")


def test_the_code_of_the_guide_runs(tmp_path, monkeypatch, policy):
    write_set(tmp_path / "my_set")
    for name in ("train", "val"):
        source = open_source("csv", path=str(tmp_path / "my_set"), splits="train.csv:images")
        prepare_records(source, tmp_path / "records" / name, 1)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(python_blocks(ROOT / "docs" / "own_data.md"))
    for large, small in SMALLER.items():
        assert large in code
        code = code.replace(large, small)
    (tmp_path / "guide.py").write_text(code)
    names = runpy.run_path(str(tmp_path / "guide.py"))
    assert names["again"].labels == LABELS
    assert names["again"].width == 1 / 16
    assert names["finetuned"].labels == ("red", "green")
    assert names["mixed"].dtype_policy.name == "mixed_bfloat16"
    assert names["road"].input_shape == (None, 128, 160, 3)
    assert len(names["history"].history["val_mean_ap"]) == 2
    for name in ("best.keras", "history.csv", "found.png", "mine.json"):
        assert (tmp_path / name).exists()


def test_the_first_block_is_short():
    """Counts the lines of code in the first block, from the first import to `fit`."""
    block = python_blocks(ROOT / "docs" / "own_data.md")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 36
    assert re.search(r"model\.fit\(", block)
