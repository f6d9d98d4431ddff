"""The command line: `ssd-keras COMMAND`, or `python -m ssd_keras COMMAND`."""

import difflib
import importlib
import itertools
import os
import re
import sys
from collections.abc import Sequence

from ssd_keras.extras import MissingExtraError
from ssd_keras.native_log import STARTUP, without_lines

COMMANDS = {
    "prepare": "convert a data set (VOC, COCO, YOLO, CSV, CVAT, Label Studio, ...) to records",
    "preview": "draw training samples: augmented images, ground truth, matched default boxes",
    "inspect": "write an HTML page about records: sizes, shapes, near-duplicates, doubtful objects",
    "fit-boxes": "show how default boxes match the objects of records, and fit a config",
    "train": "train on records by a recipe, or resume a run",
    "recipes": "list the recipes: every experiment of the paper, and two for fine-tuning",
    "data-service": "run a dispatcher or a worker of a tf.data service for train --service",
    "evaluate": "compute the VOC or COCO average precision of a detector on records",
    "report": "write an HTML page about detectors: AP, kinds of errors, pictures",
    "detect": "detect objects in image files; write annotated images and JSON lines",
    "import-weights": "convert the weights of another project to a .keras file",
    "export saved_model": "export a SavedModel for servers",
    "export tflite": "export TFLite files for phones, edge devices and browsers",
    "verify": "compare exported files with the Keras model",
    "benchmark": "measure the speed of a detector",
    "demo": "prepare, train, evaluate, export and detect on synthetic images",
    "serving-files": "copy the serving recipes: TensorFlow Serving, browser, device examples",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits the process with its exit code.

    Args:
        argv: The command-line arguments after `ssd-keras`; default: `sys.argv[1:]`.

    Raises:
        SystemExit: Always, with the exit code of the command, or 2 for an unknown command.
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
        # Level 3 shows fatal errors only. Failed operations still raise Python exceptions.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with without_lines(STARTUP):
            importlib.import_module("tensorflow")
    try:
        module = importlib.import_module(f"ssd_keras.commands.{re.sub('[ -]', '_', name)}")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    from ssd_keras.commands.common import run

    run(module, name, arguments)


def overview() -> str:
    """Returns the text of `ssd-keras help`."""
    width = max(map(len, COMMANDS))
    lines = ["SSD: Single Shot MultiBox Detector for Keras and TensorFlow", ""]
    lines += ["usage: ssd-keras COMMAND --flag=value ...", ""]
    lines += [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "ssd-keras COMMAND --help lists the flags of a command."]
    lines += ["--verbosity=0 shows the log of TensorFlow."]
    lines += ["The paper: https://arxiv.org/abs/1512.02325"]
    return "\n".join(lines)


def _unknown(words: Sequence[str]) -> str:
    if words[0] == "export":
        return "error: export needs a format: ssd-keras export saved_model, or export tflite"
    close = difflib.get_close_matches(words[0], COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it must be one of {', '.join(COMMANDS)}"
    return f"error: unknown command {words[0]!r}: {hint}"


def _wants_log(arguments: Sequence[str]) -> bool:
    """Returns whether --verbosity (or -v) requests INFO messages or more, by absl's rules.

    absl parses the flag too late: the log level must be set before TensorFlow is imported.
    """
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in ("v", "verbosity"):
            value = value or following
            return value in ("info", "debug") or value.isdecimal()
    return False


if __name__ == "__main__":
    main()
