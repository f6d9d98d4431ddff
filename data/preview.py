"""The same as `ssd-keras preview`: see its --help."""

import os
import sys

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, "-m", "ssd_keras", "preview", *sys.argv[1:]])
