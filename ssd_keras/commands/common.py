"""Runs the commands: parses flags, prints help texts and one-line errors, and handles Ctrl-C."""

import io
import re
import signal
import sys
import textwrap
import types
from collections.abc import Sequence
from types import ModuleType

import tensorflow as tf
from absl import app, flags, logging

from ssd_keras.files import reason

_WIDTH = 92  # of the help text

INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT or SIGTERM, the convention of shells

# Errors that the user can correct are printed as one line. All others show their traceback.
USER_ERRORS = (
    ValueError,
    OSError,
    FloatingPointError,
    RuntimeError,
    ImportError,
    tf.errors.OpError,
)


class Terminated(KeyboardInterrupt):
    """Raised after SIGTERM, which job schedulers send. It ends a command as Ctrl-C does."""


def run(module: ModuleType, name: str, arguments: Sequence[str]) -> None:
    """Parses the flags of a command, runs the command and exits the process.

    The exit code is the return value of the command's `main` (None counts as 0), 1 or the module's
    `ERROR_CODE` after an error that the user can correct, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        module: The module of the command. It defines the flags and `main(words)`, where `words`
            are the positional arguments. Optional attributes: `WORDS` names the positional
            arguments in the help (without it they are an error), `ERROR_CODE` replaces exit code
            1, and `interrupted()` returns a message for Ctrl-C and SIGTERM.
        name: Name of the command on the command line, such as "export tflite".
        arguments: The command-line arguments after the name.

    Raises:
        SystemExit: Always, with the exit code.
    """
    if {"-h", "--help", "--helpshort"} & set(arguments):
        print(usage(module, name))
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):  # a file name may hold bytes that are not UTF-8
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    if not any(a.lstrip("-").startswith(("v=", "verbosity")) or a == "-v" for a in arguments):
        logging.set_verbosity(logging.WARNING)
    app.run(
        lambda argv: guarded(module, name, argv[1:]),
        argv=[f"ssd-keras {name}", *arguments],
        flags_parser=lambda argv: _parse(name, argv),
    )


def _parse(name: str, argv: list[str]) -> list[str]:
    """Parses the flags. An unknown, missing or malformed flag ends the process with one line."""
    try:
        words: list[str] = flags.FLAGS(argv)
        return words
    except flags.Error as error:
        reason = " ".join(str(error).split()).removeprefix("flags ")
        print(f"error: {reason} (ssd-keras {name} --help lists the flags)", file=sys.stderr)
        sys.exit(1)


def run_script() -> None:
    """Runs the script that Python was started with (`__main__`) as a command; see `run`."""
    run(sys.modules["__main__"], sys.argv[0], sys.argv[1:])


def guarded(module: ModuleType, name: str, words: list[str]) -> int:
    """Runs a command after its flags were parsed, and prints errors as one line on stderr.

    Args:
        module: The module of the command; see `run`.
        name: Name of the command on the command line.
        words: The positional arguments.

    Returns:
        The exit code.
    """
    try:
        if words and not hasattr(module, "WORDS"):
            raise ValueError(
                f"{' '.join(words)}: {name} takes flags only. If this text belongs to the value of "
                "a flag, separate values by commas and quote values that contain spaces"
            )
        return module.main(words) or 0
    except KeyboardInterrupt as stop:
        kept = module.interrupted() if hasattr(module, "interrupted") else "nothing was written"
        print(f"\ninterrupted: {kept}", file=sys.stderr)
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    except USER_ERRORS as error:
        print(f"error: {_message(error)}", file=sys.stderr)
        return int(getattr(module, "ERROR_CODE", 1))


def _terminate(number: int, frame: types.FrameType | None) -> None:
    raise Terminated


def _message(error: BaseException) -> str:
    """Returns the message of an error. Those of TensorFlow operations are cut to one line."""
    if not isinstance(error, tf.errors.OpError):
        return str(error)
    advice = ""
    if isinstance(error, tf.errors.DataLossError):
        advice = ": `ssd-keras prepare --check=FOLDER` names the damaged file of a record set"
    return reason(error) + advice


def usage(module: ModuleType, name: str) -> str:
    """Returns the help text of a command: the docstring of its module and its flags.

    Args:
        module: The module of the command; see `run`.
        name: Name of the command on the command line.

    Returns:
        The text, with several lines.
    """
    program = name if module.__name__ == "__main__" else f"ssd-keras {name}"
    words = f" {module.WORDS}" if hasattr(module, "WORDS") else ""
    lines = [(module.__doc__ or "").strip(), "", f"usage: {program} --flag=value ...{words}"]
    for by_module, found in flags.FLAGS.flags_by_module_dict().items():
        if by_module.startswith("ssd_keras.") or by_module == sys.argv[0]:
            for flag in found:
                lines += ["", *_flag_lines(flag)]
    lines += ["", "  --verbosity=INTEGER  (default -1)"]
    lines += ["      0 shows the log of TensorFlow; -1 shows warnings and errors only."]
    return "\n".join(lines)


def _flag_lines(flag: flags.Flag) -> list[str]:
    """Returns the help of a flag: a line with its name, values and default, and its text."""
    required = any("must have a value other than None" in v.message for v in flag.validators)
    choices = getattr(flag, "enum_values", None) or getattr(flag.parser, "enum_values", None)
    if flag.boolean:
        head = f"  --[no]{flag.name}"
    else:
        kind = "LIST" if "list" in flag.flag_type() else flag.flag_type().upper()
        if choices:
            kind = "|".join(choices) if len("|".join(choices)) < _WIDTH // 2 else "NAME"
        head = f"  --{flag.name}={kind}"
    default = ""
    if required:
        default = "required"
    elif flag.default not in (None, [], ""):
        value = flag.default
        default = f"default {','.join(map(str, value)) if isinstance(value, list) else value}"
    text = re.sub("^<.*?>: ", "", flag.help)
    if head.endswith("=NAME"):
        text += f" One of {', '.join(choices or ())}."
    lines = textwrap.wrap(text, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    return [f"{head}  ({default})" if default else head, *lines]
