"""A progress bar and batches for loops over many images."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_WIDTH = 30  # characters
_SECONDS_BETWEEN_LINES = 0.1


class ProgressBar:
    """A progress bar on stderr. It writes nothing if stderr is not a terminal.

    Args:
        total: Number of items, or None if it is not known.
        unit: Name of an item.
    """

    def __init__(self, total: int | None, unit: str = "image") -> None:
        self._total, self._unit = total, unit
        self._done, self._start = 0, time.perf_counter()
        self._last = 0.0
        self._shown = False

    def add(self, count: int) -> None:
        """Counts `count` more items. The line ends when the total is reached."""
        self._done += count
        now = time.perf_counter()
        complete = self._total is not None and self._done >= self._total
        if not sys.stderr.isatty() or (now - self._last < _SECONDS_BETWEEN_LINES and not complete):
            return
        self._last, self._shown = now, True
        speed = f"{self._done / max(now - self._start, 1e-9):.1f} {self._unit}s/s"
        if self._total:
            filled = "=" * round(_WIDTH * min(self._done / self._total, 1))
            text = f"{self._done}/{self._total} [{filled:{_WIDTH}}] {speed}"
        else:
            text = f"{self._done} {self._unit}s, {speed}"
        sys.stderr.write(f"\r{text}\033[K")
        sys.stderr.flush()
        if complete:
            self.finish()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, counts each, and ends the line, also after an error."""
        try:
            for item in items:
                yield item
                self.add(1)
        finally:
            self.finish()

    def finish(self) -> None:
        """Ends the line, so that the next output starts a new one."""
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False


def progress_bar(total: int | None, unit: str = "image") -> ProgressBar:
    """Returns a progress bar for `total` items; see `ProgressBar`."""
    return ProgressBar(total, unit)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yields lists of `size` consecutive items; the last list may be shorter.

    Raises:
        ValueError: If `size` is below 1. The message calls it batch_size.
    """
    if size < 1:
        raise ValueError(f"batch_size (={size}) must be at least 1")
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
