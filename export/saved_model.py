"""Runs `ssd-keras export saved_model`; see its --help."""

import os
import sys

if __name__ == "__main__":
    os.execv(
        sys.executable, [sys.executable, "-m", "ssd_keras", "export", "saved_model", *sys.argv[1:]]
    )
