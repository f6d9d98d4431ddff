"""The frame of every command: flags, help, errors in one line, Ctrl-C."""

import re
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType

import tensorflow as tf
from absl import app, flags, logging

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# Errors that the user can correct. All others are defects and show their traceback.
USER_ERRORS = (
    ValueError,
    OSError,
    FloatingPointError,
    RuntimeError,
    ImportError,
    tf.errors.OpError,
)


def run(module: ModuleType, name: str, arguments: Sequence[str]) -> None:
    """Parses the flags of a command, runs it and exits.

    Exit codes: that of the command's `main` (None is 0), 1 for an error that the user can correct
    (or the module's `ERROR_CODE`), 130 after Ctrl-C.

    Args:
        module: Defines the flags and `main(words)`. If `main` takes words behind the flags, the
            module says in `WORDS` which. `interrupted()` may return what was kept at Ctrl-C.
        name: What the user calls the command.
        arguments: Flags and words.
    """
    if {"-h", "--help", "--helpshort"} & set(arguments):
        print(usage(module, name))
        sys.exit(0)
    if not any(a.lstrip("-").startswith(("v=", "verbosity")) or a == "-v" for a in arguments):
        logging.set_verbosity(logging.WARNING)
    app.run(lambda argv: guarded(module, name, argv[1:]), argv=[f"ssd-keras {name}", *arguments])


def run_script() -> None:
    """Runs the script that was started as a command, as `run` does."""
    run(sys.modules["__main__"], sys.argv[0], sys.argv[1:])


def guarded(module: ModuleType, name: str, words: list[str]) -> int:
    """Runs a command whose flags are parsed; errors become one line on stderr.

    Args:
        module: See `run`.
        name: See `run`.
        words: The words behind the flags.

    Returns:
        The exit code.
    """
    try:
        if words and not hasattr(module, "WORDS"):
            raise ValueError(
                f"{' '.join(words)}: {name} takes flags only. Is this part of a flag's value? "
                "Values are joined by commas, and quoted if they hold blanks"
            )
        return module.main(words) or 0
    except KeyboardInterrupt:
        kept = module.interrupted() if hasattr(module, "interrupted") else "nothing was written"
        print(f"\ninterrupted: {kept}", file=sys.stderr)
        return INTERRUPTED
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return int(getattr(module, "ERROR_CODE", 1))


def usage(module: ModuleType, name: str) -> str:
    """The help of a command: its docstring and its flags."""
    program = name if module.__name__ == "__main__" else f"ssd-keras {name}"
    words = f" {module.WORDS}" if hasattr(module, "WORDS") else ""
    lines = [(module.__doc__ or "").strip(), "", f"usage: {program} --flag=value ...{words}"]
    for by_module, found in flags.FLAGS.flags_by_module_dict().items():
        if by_module.startswith("ssd_keras.") or by_module == sys.argv[0]:
            for flag in found:
                lines += ["", *_flag_lines(flag)]
    lines += ["", "  --verbosity=0 shows the log lines of TensorFlow; -1, warnings, is the default"]
    return "\n".join(lines)


def _flag_lines(flag: flags.Flag) -> list[str]:
    """Name, values and default of a flag, then its help, wrapped."""
    required = any("must have a value other than None" in v.message for v in flag.validators)
    choices = getattr(flag, "enum_values", None) or getattr(flag.parser, "enum_values", None)
    if flag.boolean:
        head = f"  --[no]{flag.name}"
    else:
        kind = "LIST" if "list" in flag.flag_type() else flag.flag_type().upper()
        head = f"  --{flag.name}={'|'.join(choices) if choices else kind}"
    default = ""
    if required:
        default = "required"
    elif flag.default not in (None, [], ""):
        value = flag.default
        default = f"default {','.join(map(str, value)) if isinstance(value, list) else value}"
    text = textwrap.wrap(
        re.sub("^<.*?>: ", "", flag.help), 92, initial_indent="      ", subsequent_indent="      "
    )
    return [f"{head}  ({default})" if default else head, *text]
