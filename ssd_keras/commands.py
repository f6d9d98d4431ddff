"""What the commands share."""

import functools
import sys
from collections.abc import Callable

import tensorflow as tf

Main = Callable[[list[str]], int | None]


def command(main: Main) -> Main:
    """Turns the errors a user can mend into one line and exit code 1, not a traceback.

    Words behind the flags are refused: `--records a b` would otherwise be `a` alone.
    """

    @functools.wraps(main)
    def run(argv: list[str]) -> int | None:
        if argv[1:]:
            words = " ".join(argv[1:])
            print(
                f"error: {words}: takes no words beside its flags; is it part of one's value "
                "(values are joined by commas, quoted if they hold blanks)?",
                file=sys.stderr,
            )
            return 1
        return command_with_inputs(main)(argv)

    return run


def command_with_inputs(main: Main, error_code: int = 1) -> Main:
    """As `command`, for one that takes names of files behind its flags, `argv[1:]`."""

    @functools.wraps(main)
    def run(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except (ValueError, OSError, FloatingPointError, RuntimeError, tf.errors.OpError) as error:
            print(f"error: {error}", file=sys.stderr)
            return error_code

    return run
