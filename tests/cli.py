"""Running commands: in this process, or as a user does."""

import contextlib
import importlib
import pathlib
import re
import subprocess
import sys

from absl import flags

from ssd_keras.commands.common import guarded

ROOT = pathlib.Path(__file__).parents[1]


@contextlib.contextmanager
def loaded_command(name):
    """Imports the module of a command. Its flags are removed at the end of the block.

    absl cannot define the flags of two commands in one process.
    """
    before = set(flags.FLAGS)
    path = f"ssd_keras.commands.{re.sub('[ -]', '_', name)}"
    sys.modules.pop(path, None)
    yield importlib.import_module(path)
    sys.modules.pop(path, None)
    for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)


def in_process(module, *arguments):
    """Runs a loaded command and returns its exit code. Other flags have their defaults."""
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS:
        flags.FLAGS[flag].unparse()
    _, *words = flags.FLAGS(["ssd-keras", *arguments])
    return guarded(module, module.__name__, words)


def ssd_keras(*arguments, cwd=ROOT):
    """`python -m ssd_keras ...` as a process."""
    command = [sys.executable, "-m", "ssd_keras", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
