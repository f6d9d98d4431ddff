"""Ctrl-C and SIGTERM: the step ends, the checkpoint is written, then the run stops."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal, and its checkpoint is written.

    Attributes:
        exit_code: 128 + the number of the signal: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class _Aborted(Exception):
    """A signal came where the work at hand may be given up."""


class Interruption:
    """Notes the first signal; a second Ctrl-C or SIGTERM ends the process as usual.

    Attributes:
        number: The signal, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._may_abort = False
        self._previous: dict[signal.Signals, Any] = {}

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catches the signals; only the main thread of a process may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._previous = {n: signal.signal(n, self._note) for n in _SIGNALS}
        try:
            yield
        finally:
            self._restore()

    def attempt(self, work: Callable[[], None]) -> None:
        """Does work that a signal cuts short, such as an evaluation that takes minutes.

        Args:
            work: Left out if there was a signal before.
        """
        if self.number:
            return
        self._may_abort = True
        try:
            work()
        except _Aborted:
            pass
        finally:
            self._may_abort = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()
        if self._may_abort:
            raise _Aborted

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
