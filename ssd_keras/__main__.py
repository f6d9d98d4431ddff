"""The command line: `ssd-keras COMMAND`, or `python -m ssd_keras COMMAND`."""

import difflib
import importlib
import itertools
import os
import re
import sys
from collections.abc import Sequence

from ssd_keras.native_log import STARTUP, without_lines

COMMANDS = {
    "prepare": "write a data set (VOC, COCO, YOLO, TFDS, ILSVRC DET, shapes) as records",
    "preview": "draw what a training sees: augmented images, ground truth, matched default boxes",
    "train": "train on records by a recipe, or resume a run",
    "recipes": "list the recipes: every experiment of the paper, and two for fine-tuning",
    "data-service": "run a dispatcher or a worker of a tf.data service for train --service",
    "evaluate": "measure VOC or COCO average precision of a detector on records",
    "detect": "detect on image files: pictures with boxes, and JSON lines",
    "import-weights": "convert weights of another project to a model",
    "export saved_model": "write a SavedModel for servers",
    "export tflite": "write TFLite files for phones, edge devices and browsers",
    "verify": "compare exported files with the Keras model",
    "benchmark": "measure the speed of a detector",
    "demo": "run all of it on built-in images: records, training, AP, exports, detections",
    "serving-files": "copy the serving recipes: TensorFlow Serving, browser, device examples",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its code.

    Args:
        argv: The words behind `ssd-keras`; by default those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or (words[0] in ("help", "-h", "--help") and not words[1:]):
        print(overview())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        from ssd_keras.version import __version__

        print(__version__)
        sys.exit(0)
    if words[0] == "help":
        words = [*words[1:], "--help"]
    name = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
    if name is None:
        print(_unknown(words), file=sys.stderr)
        sys.exit(2)
    arguments = words[len(name.split()) :]
    if not _wants_log(arguments):
        # 3 leaves fatal errors; errors of operations reach Python as exceptions in any case.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with without_lines(STARTUP):
            importlib.import_module("tensorflow")
    module = importlib.import_module(f"ssd_keras.commands.{re.sub('[ -]', '_', name)}")
    from ssd_keras.commands.common import run

    run(module, name, arguments)


def overview() -> str:
    """The text of `ssd-keras help`."""
    width = max(map(len, COMMANDS))
    lines = ["SSD: Single Shot MultiBox Detector for Keras and TensorFlow", ""]
    lines += ["usage: ssd-keras COMMAND --flag=value ...", ""]
    lines += [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "ssd-keras COMMAND --help lists the flags of a command; --verbosity=0 shows the"]
    lines += ["log lines of TensorFlow. https://arxiv.org/abs/1512.02325 is the paper."]
    return "\n".join(lines)


def _unknown(words: Sequence[str]) -> str:
    if words[0] == "export":
        return "error: export what? ssd-keras export saved_model, or ssd-keras export tflite"
    close = difflib.get_close_matches(words[0], COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(COMMANDS)}"
    return f"error: unknown command {words[0]!r}: {hint}"


def _wants_log(arguments: Sequence[str]) -> bool:
    """Whether --verbosity (-v) asks for INFO or more, as in absl; read before absl is set up."""
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in ("v", "verbosity"):
            value = value or following
            return value in ("info", "debug") or value.isdecimal()
    return False


if __name__ == "__main__":
    main()
