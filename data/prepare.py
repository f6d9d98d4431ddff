"""Runs `ssd-keras prepare` with the same flags."""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "ssd_keras", "prepare", *sys.argv[1:]])
