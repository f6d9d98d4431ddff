"""Runs `ssd-keras export tflite`; see its --help."""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "ssd_keras", "export", "tflite", *sys.argv[1:]])
