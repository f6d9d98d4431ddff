"""Copies the serving recipes into a new folder.

    ssd-keras serving-files --out=serving

The folder holds files for TensorFlow Serving (REST and gRPC clients, batching, warm-up), a web page
that detects in the browser, and LiteRT and MediaPipe examples for devices. README.md in the folder
explains their use.
"""

import shutil
from pathlib import Path

from absl import flags

from ssd_keras.files import atomic, shipped

_OUT = flags.DEFINE_string("out", None, "Folder to create.", required=True)


def main(words: list[str]) -> None:
    """Copies the files."""
    del words
    out = Path(_OUT.value)
    if out.exists():
        raise ValueError(f"out (={out}) already exists: name another folder")
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    with atomic(out) as temporary:
        shutil.copytree(shipped("serving"), temporary, ignore=ignored)
    print(f"{out}: start with {out / 'README.md'}")
