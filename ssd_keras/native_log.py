"""Filters lines that compiled libraries write to stderr, where Python's logging cannot."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# TensorFlow writes these while it is imported, before its own log level applies.
STARTUP = re.compile(
    r"I0000 |WARNING: All log messages before absl::InitializeLog|To enable the following instr"
)
TFLITE = re.compile(r"INFO: Created TensorFlow Lite XNNPACK delegate|fully_quantize: ")


@contextlib.contextmanager
def without_lines(pattern: re.Pattern[str]) -> Iterator[None]:
    """Leaves out the lines on stderr that begin with `pattern`; all others are written afterwards.

    For short calls only: the other lines appear when the block ends.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as captured:
        stderr = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            for line in captured.read().decode(errors="replace").splitlines(keepends=True):
                if not pattern.match(line):
                    sys.stderr.write(line)
