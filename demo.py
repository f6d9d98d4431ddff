"""Runs `ssd-keras demo`; `python demo.py SEED` runs `ssd-keras demo --seed=SEED`."""

import os
import sys

if __name__ == "__main__":
    seed = [f"--seed={word}" for word in sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, "-m", "ssd_keras", "demo", *seed])
