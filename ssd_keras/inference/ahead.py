"""Threads that read the inputs of a loop in advance, and write its outputs in the background."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    function: Callable[[T], R], items: Iterable[T], ahead: int, threads: int = 2
) -> Iterator[R]:
    """Yields `function(item)` for each item in order, computed in threads.

    Args:
        function: The function to call.
        items: The arguments. They are read lazily.
        ahead: Maximum number of results that are computed in advance. This bounds the memory.
        threads: Number of threads.

    Yields:
        The results, in the order of `items`. An error of a call is raised in place of its result.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[Future[R]] = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class WriteBehind:
    """Context manager that calls functions in threads.

    The end of the block waits for all calls. An error of a call is raised by a later call or at the
    end of the block.

    Args:
        behind: Maximum number of unfinished calls. This bounds the memory. With more, a new call
            waits until the oldest one has finished.
        threads: Number of threads.
    """

    def __init__(self, behind: int, threads: int = 2) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._behind = behind
        self._waiting: collections.deque[Future[Any]] = collections.deque()

    def __enter__(self) -> "WriteBehind":
        return self

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Calls `function(*arguments)` in a thread."""
        self._waiting.append(self._pool.submit(function, *arguments))
        while len(self._waiting) > self._behind:
            self._waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            for future in self._waiting:
                future.cancel()
        self._pool.shutdown(wait=True)
        if kind is None:
            for future in self._waiting:
                future.result()
