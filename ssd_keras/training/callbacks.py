"""Callbacks of a training run: divergence guard with stop after a signal, and progress bar.

No callback reads a value from the device after each batch; the device would have to wait for
Python. The callbacks use `on_train_batch_begin`, because Keras converts all metrics to Python
numbers before it calls `on_train_batch_end`. An epoch of Keras is the span between two checkpoints.
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

# With several workers, batches between two reads of the watch: all workers read at the same batch.
_READ_EVERY = 20
_READ_SECONDS = 1.0  # with a single process, seconds between two reads of the watch


class Guard(keras.callbacks.Callback):
    """Stops the training if the loss or the gradients diverge, or after a signal.

    The optimizer records the gradient norm on the device (`Solver.watch`). The guard reads this
    variable once a second (with several workers, every 20 batches) and before each checkpoint. A
    checkpoint is therefore never written after divergence. The error names the images of the batch.

    Args:
        gradient_limit: Largest allowed norm of the gradients.
        records: Record sets of the run, to name the images of a batch. Empty if the order of the
            batches is not fixed; the images are then unknown.
        batch_size: Batch size of the run, to name the images.
        seed: Seed of the run, to name the images.
        first_batch: Number of the first batch, counted from the beginning of the run.
        accumulate: Number of batches per optimizer step.
        interruption: After it has noted a signal, the guard stops the training at the end of the
            optimizer step. None if signals are not caught.
        several_workers: Whether other processes train with this one.

    Attributes:
        stopped: Whether the guard stopped the training because of a signal.

    Raises:
        FloatingPointError: During `fit`, if the gradient norm is above the limit or not finite, or
            the loss is not finite.
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
        self._read_at = time.monotonic()

    @property
    def iteration(self) -> int:
        """Number of iterations that the run has completed."""
        return self._next_batch // self.accumulate

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Clears the watch."""
        solver(self.model.optimizer).start_watch(self.gradient_limit)
        self._first_batch = self._next_batch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads the watch if it is time; after a signal, stops at the end of an optimizer step."""
        stop = bool(self.interruption.number)
        if self.several_workers:
            if stop:
                solver(self.model.optimizer).stop_request.assign(1.0)
            # All workers must stop at the same batch. The watch has the sum of their requests.
            seen = self._next_batch - self._first_batch
            stop = seen > 0 and seen % _READ_EVERY == 0 and self._read_watch()[STOP] > 0
        elif time.monotonic() - self._read_at > _READ_SECONDS:
            self._read_watch()
        self.stopped = self.stopped or stop
        self._next_batch += 1
        if self.stopped and self._next_batch % self.accumulate == 0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads the watch, and adds the largest gradient norm since the last checkpoint to logs."""
        watch = self._read_watch(float((logs or {}).get("loss", 0.0)))
        if self.several_workers and watch[STOP] > 0:
            self.stopped = self.model.stop_training = True
        if logs is not None:
            logs["gradient_norm"] = float(watch[LARGEST])

    def _read_watch(self, loss: float | None = None) -> np.ndarray:
        """Reads the watch of the optimizer, float32 [6].

        Args:
            loss: Mean loss since the last checkpoint, or None if it was not read.

        Raises:
            FloatingPointError: If a gradient norm is above the limit or not finite, or the loss is
                not finite.
        """
        watch = keras.ops.convert_to_numpy(solver(self.model.optimizer).watch)
        self._read_at = time.monotonic()
        if watch[FIRST_BAD] < 0 and (loss is None or np.isfinite(loss)):
            return watch
        seen = self._next_batch - self._first_batch
        first = int(watch[FIRST_BAD])
        # The optimizer does not count batches whose gradients overflow (mixed_float16). The number
        # of the bad batch may therefore be larger by up to the number of such batches.
        last = first + seen - int(watch[BATCHES])
        first, last = (first, last) if first >= 0 else (0, seen - 1)
        first, last = first + self._first_batch, last + self._first_batch
        where = f"batch {first}" if first == last else f"one of the batches {first} to {last}"
        norm = watch[BAD_NORM] if watch[FIRST_BAD] >= 0 else watch[LARGEST]
        raise FloatingPointError(
            f"{where}: gradient norm (={norm:g}, limit {self.gradient_limit:g})"
            f"{'' if loss is None else f', mean loss since the last checkpoint (={loss:g})'}; "
            f"images: {', '.join(self._images(first, last))}. Check these images (ssd-keras "
            "preview), or start again with a smaller learning_rate, a warmup or clip_norm"
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
    """Shows a progress bar with the loss, images per second and the remaining time of the run.

    If stdout is not a terminal, the callback prints one line per epoch of Keras.

    Args:
        iterations: Iterations of the run.
        done: Iterations before this call of `fit`.
        batch_size: Images per batch.
        accumulate: Batches per iteration.
        several_workers: Whether other processes train with this one. The bar then shows the loss
            only at the end of an epoch, because reading it would wait for all workers.
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
        self._epoch_batches = self._finished = 0
        self._seconds = 0.0
        self._started = self._shown = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._epoch_batches = self._finished = 0
        self._started = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the bar, at most once a second."""
        # The time of the last batch is taken here, so that evaluation does not count as training.
        self._finished, self._seconds = self._epoch_batches, time.monotonic() - self._started
        if self._epoch_batches and self._terminal and time.monotonic() - self._shown > 1:
            self._shown = time.monotonic()
            logs = {} if self.several_workers else self.model.get_metrics_result()
            print(f"\r{self._line(logs)}\033[K", end="", flush=True)
        self._batches += 1
        self._epoch_batches += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the line, and adds `images_per_second` to the logs."""
        if logs is None:
            return
        logs["images_per_second"] = self._speed()
        print(f"{chr(13) if self._terminal else ''}{self._line(logs)}", flush=True)

    def _speed(self) -> float:
        batches, seconds = self._finished, self._seconds
        if not batches:  # an epoch of a single batch
            batches, seconds = self._epoch_batches, time.monotonic() - self._started
        return batches * self.batch_size / max(seconds, 1e-6)

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
