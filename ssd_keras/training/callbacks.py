"""Callbacks of a training run: divergence guard, progress bar, stop after a signal.

None of them reads a value of the device after each batch: that would make the device wait. They
use `on_train_batch_begin`, since Keras turns all metrics into numbers for `on_train_batch_end`.
"""

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ssd_keras.data import epochs
from ssd_keras.training.interruption import Interruption
from ssd_keras.training.optimizer import (
    BAD_NORM,
    BATCHES,
    FIRST_BAD,
    LARGEST,
    STOP,
    solver,
)

_LOOK_EVERY = 20  # batches between two looks of several workers, which must agree on them
_LOOK_SECONDS = 1.0  # between two looks of a single process


class Guard(keras.callbacks.Callback):
    """Stops when the loss or the gradients diverge, and names the images of that batch.

    The optimizer watches the norm on the device (`Solver.watch`). The guard reads that once a
    second, or every 20 batches if there are several workers, and always before a checkpoint is
    written: the last checkpoint is never one of a diverged run.

    Args:
        gradient_limit: Largest norm of the gradients.
        records: Record sets of the run, to name the images; none if their order is not fixed.
        batch_size: The run's, likewise.
        seed: The run's, likewise.
        first_batch: Number of the first batch, counted from the beginning of the run.
        accumulate: Batches of one step of the optimizer.
        interruption: A run that it was told to end stops after the step; None: it never does.
        several_workers: Whether other processes train with this one.
    """

    def __init__(
        self,
        gradient_limit: float,
        records: Sequence[str | os.PathLike[str]],
        batch_size: int,
        seed: int,
        first_batch: int = 0,
        *,
        accumulate: int = 1,
        interruption: Interruption | None = None,
        several_workers: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_limit = gradient_limit
        self.records = records
        self.batch_size = batch_size
        self.seed = seed
        self.accumulate = accumulate
        self.interruption = interruption or Interruption()
        self.several_workers = several_workers
        self.stopped = False
        self._first_batch = self._next_batch = first_batch
        self._looked = time.monotonic()

    @property
    def iteration(self) -> int:
        """Iterations of the run behind it."""
        return self._next_batch // self.accumulate

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Clears the watch of the last span."""
        solver(self.model.optimizer).start_watch(self.gradient_limit)
        self._first_batch = self._next_batch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks now and then; stops the run with the step that this batch ends."""
        stop = bool(self.interruption.number)
        if self.several_workers:
            if stop:
                solver(self.model.optimizer).stop_request.assign(1.0)
            # Other workers must stop at the same batch: the watch has the sum of all requests.
            seen = self._next_batch - self._first_batch
            stop = seen > 0 and seen % _LOOK_EVERY == 0 and self._look()[STOP] > 0
        elif time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        self.stopped = self.stopped or stop
        self._next_batch += 1
        if self.stopped and self._next_batch % self.accumulate == 0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks before the checkpoint is written; adds the span's largest norm to the logs."""
        watch = self._look(float((logs or {}).get("loss", 0.0)))
        if self.several_workers and watch[STOP] > 0:
            self.stopped = self.model.stop_training = True
        if logs is not None:
            logs["gradient_norm"] = float(watch[LARGEST])

    def _look(self, loss: float | None = None) -> np.ndarray:
        """Reads the watch.

        Raises:
            FloatingPointError: If a batch was bad.
        """
        watch = keras.ops.convert_to_numpy(solver(self.model.optimizer).watch)
        self._looked = time.monotonic()
        if watch[FIRST_BAD] < 0 and (loss is None or np.isfinite(loss)):
            return watch
        seen = self._next_batch - self._first_batch
        first = int(watch[FIRST_BAD])
        # Batches that overflow (mixed_float16) do not reach the optimizer: the bad one may be
        # later by as many.
        last = first + seen - int(watch[BATCHES])
        first, last = (first, last) if first >= 0 else (0, seen - 1)
        first, last = first + self._first_batch, last + self._first_batch
        where = f"batch {first}" if first == last else f"one of the batches {first} to {last}"
        norm = watch[BAD_NORM] if watch[FIRST_BAD] >= 0 else watch[LARGEST]
        raise FloatingPointError(
            f"{where}: gradient norm (={norm:g}, limit {self.gradient_limit:g})"
            f"{'' if loss is None else f', mean loss since the last checkpoint (={loss:g})'}; "
            f"images: {', '.join(self._images(first, last))}. Look at them (ssd-keras preview), or "
            "start again with a smaller learning_rate, a warmup or clip_norm"
        )

    def _images(self, first: int, last: int) -> list[str]:
        if not self.records or last - first > 100:
            return ["unknown"]
        return [
            name
            for batch in range(first, last + 1)
            for name in epochs.batch_image_ids(self.records, self.batch_size, self.seed, batch)
        ]


class Progress(keras.callbacks.Callback):
    """A progress bar with the loss, images per second and the time left of the whole run.

    Where the output is no terminal it prints one line a span.

    Args:
        iterations: Iterations of the run.
        done: Iterations before this call of `fit`.
        batch_size: Images in a batch.
        accumulate: Batches of an iteration.
        several_workers: Whether other processes train with this one. The bar shows no loss within
            a span then: reading it would wait for all of them.
    """

    def __init__(
        self,
        iterations: int,
        done: int,
        batch_size: int,
        accumulate: int,
        several_workers: bool = False,
    ) -> None:
        super().__init__()
        self.several_workers = several_workers
        self.iterations = iterations
        self.batch_size = batch_size
        self.accumulate = accumulate
        self._terminal = sys.stdout.isatty()
        self._batches = done * accumulate
        self._span = 0
        self._seconds = 0.0
        self._started = self._shown = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock: evaluation and checkpoints do not count as training."""
        self._span, self._started = 0, time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the bar, at most once a second."""
        if self._span and self._terminal and time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            logs = {} if self.several_workers else self.model.get_metrics_result()
            print(f"\r{self._line(logs)}\033[K", end="", flush=True)
        self._batches += 1
        self._span += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the line, and adds the speed to the logs."""
        if logs is None:
            return
        logs["images_per_second"] = self._speed()
        print(f"{chr(13) if self._terminal else ''}{self._line(logs)}", flush=True)

    def _speed(self) -> float:
        return self._span * self.batch_size / max(time.monotonic() - self._started, 1e-6)

    def _line(self, logs: dict[str, Any]) -> str:
        done, speed = self._batches // self.accumulate, self._speed()
        total = self.iterations * self.accumulate
        seconds = (total - self._batches) * self.batch_size / speed if speed else math.inf
        share = self._batches / total
        bar = f"[{'=' * round(20 * share):20}] " if self._terminal else ""
        shown = (("loss", "loss"), ("AP", "val_mean_ap"))
        found = "".join(f"{word} {float(logs[n]):.4f}, " for word, n in shown if n in logs)
        return (
            f"{bar}iteration {done}/{self.iterations}: {found}{speed:.1f} images/s, "
            f"{_duration(seconds)} left"
        )


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
