"""Runs `ssd-keras verify`; see its --help."""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "ssd_keras", "verify", *sys.argv[1:]])
