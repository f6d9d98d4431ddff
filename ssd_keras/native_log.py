"""Filters messages of compiled libraries on stderr, which Python's logging cannot filter."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# TensorFlow writes these lines during its import, before its log level takes effect.
STARTUP = re.compile(
    r"I0000 |WARNING: All log messages before absl::InitializeLog|To enable the following instr"
)
TFLITE = re.compile(r"INFO: Created TensorFlow Lite XNNPACK delegate|fully_quantize: ")


@contextlib.contextmanager
def without_lines(pattern: re.Pattern[str]) -> Iterator[None]:
    """Context manager that drops the lines on stderr that match `pattern` at their start.

    The other lines appear when the block ends, so the block should be short.

    Args:
        pattern: Pattern for the start of the lines to drop.
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
