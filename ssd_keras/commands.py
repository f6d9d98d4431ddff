"""What the commands share."""

import functools
import sys
from collections.abc import Callable

import tensorflow as tf


def command(main: Callable[[list[str]], int | None]) -> Callable[[list[str]], int | None]:
    """Turns the errors a user can mend into one line and exit code 1, not a traceback."""

    @functools.wraps(main)
    def run(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except (ValueError, OSError, FloatingPointError, RuntimeError, tf.errors.OpError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return run
