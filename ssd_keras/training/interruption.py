"""Handles Ctrl-C and SIGTERM: the run ends the current step, writes the checkpoint and stops."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal, after it wrote its checkpoint.

    Args:
        number: The number of the signal.
        message: The error message.

    Attributes:
        exit_code: 128 + the number of the signal: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class _Aborted(Exception):
    """A signal arrived during `Interruption.attempt`."""


class Interruption:
    """Notes the first Ctrl-C or SIGTERM. A second signal ends the process at once.

    Attributes:
        number: The number of the signal, or 0 before a signal.
    """

    def __init__(self) -> None:
        self.number = 0
        self._may_abort = False
        self._previous: dict[signal.Signals, Any] = {}

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Context manager that notes signals; it does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._previous = {n: signal.signal(n, self._note) for n in _SIGNALS}
        try:
            yield
        finally:
            self._restore()

    def attempt(self, work: Callable[[], None]) -> None:
        """Calls a function that a signal interrupts, such as an evaluation that takes minutes.

        Args:
            work: The function. It is not called if a signal has arrived before.
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
