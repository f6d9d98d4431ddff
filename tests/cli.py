"""Running commands in this process; `processes` runs them in one of their own."""

import contextlib
import importlib
import re
import sys

from absl import flags

from ssd_keras.commands.common import guarded


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
