"""A slice of the fuzzer. A failure prints the command that repeats its case."""

import subprocess
import sys

from tests.processes import ROOT

FAST = (
    "pictures,voc,coco,yolo,labels,cards,records,histories,saved_models,"
    "weights.npz,weights.safetensors,weights.caffemodel,weights.h5,weights.keras"
)


def test_nothing_fails_on_damaged_files():
    command = [sys.executable, "-m", "tests.fuzz", "--cases=40", "--seed=17", f"--targets={FAST}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "560 cases, 0 failures" in done.stdout
